//! Vectors of frames, sound and broken, that say the same to a server (masked) and to a client (unmasked).

use super::{Stream, shown};
use ringwave::{Delivery, Limits};

/// Frames that mean the same to a server and, unmasked, to a client.
pub(crate) struct FrameVector {
    name: String,
    parts: Vec<Part>,
    limits: Limits,
    expected: Vec<String>,
}

impl FrameVector {
    fn new(name: impl Into<String>, parts: Vec<Part>, expected: &[&str]) -> Self {
        let expected = expected.iter().map(|line| (*line).to_owned()).collect();
        Self { name: name.into(), parts, limits: Limits::default(), expected }
    }

    pub(crate) fn stream(&self, masked: bool) -> Stream {
        let mut marks = Vec::new();
        let mut bytes = Vec::new();
        for part in &self.parts {
            marks.push(bytes.len());
            bytes.extend(part.wire(masked));
            marks.push(bytes.len() - part.payload().len());
        }
        // Which of the two rules is broken depends on who reads.
        let mask_rule = if masked { "failed 1002 MaskMissing" } else { "failed 1002 MaskPresent" };
        let expected = self.expected.iter().map(|line| line.replace("failed MASK", mask_rule)).collect();
        let name = format!("{} ({})", self.name, if masked { "masked" } else { "unmasked" });
        Stream { name, bytes, marks, limits: self.limits, expected }
    }
}

/// A frame to be written as it is told, sound or not; or bytes that are none.
#[derive(Clone)]
pub(crate) enum Part {
    Frame { first: u8, length: Length, payload: Vec<u8>, wrongly_masked: bool },
    Bytes(Vec<u8>),
}

/// How a frame announces its payload.
#[derive(Clone, Copy)]
pub(crate) enum Length {
    /// As RFC 6455 §5.2 wants it.
    Minimal,
    /// 126 and 16 bits.
    In16(u16),
    /// 127 and 64 bits.
    In64(u64),
}

impl Part {
    /// Written down apart from the engine's own encoder.
    pub(crate) fn wire(&self, masked: bool) -> Vec<u8> {
        let (first, length, payload, masked) = match self {
            Self::Bytes(bytes) => return bytes.clone(),
            Self::Frame { first, length, payload, wrongly_masked } => {
                (*first, *length, payload, masked != *wrongly_masked)
            }
        };
        let bit = if masked { 0x80 } else { 0 };
        let length = match (length, payload.len()) {
            (Length::Minimal, length @ 0..=125) => vec![bit | length as u8],
            (Length::Minimal, length @ 126..=0xffff) => [&[bit | 126][..], &(length as u16).to_be_bytes()].concat(),
            (Length::Minimal, length) => [&[bit | 127][..], &(length as u64).to_be_bytes()].concat(),
            (Length::In16(length), _) => [&[bit | 126][..], &length.to_be_bytes()].concat(),
            (Length::In64(length), _) => [&[bit | 127][..], &length.to_be_bytes()].concat(),
        };
        let key = [0x37, 0xfa, 0x21, 0x3d];
        let mut wire = [&[first][..], &length].concat();
        if masked {
            wire.extend(key);
            wire.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
        } else {
            wire.extend(payload);
        }
        wire
    }

    fn payload(&self) -> &[u8] {
        match self {
            Self::Frame { payload, .. } | Self::Bytes(payload) => payload,
        }
    }
}

pub(crate) fn bytes_of(parts: &[Part], masked: bool) -> Vec<u8> {
    parts.iter().flat_map(|part| part.wire(masked)).collect()
}

pub(crate) fn frame(first: u8, payload: &[u8]) -> Part {
    announced(first, Length::Minimal, payload)
}

pub(crate) fn announced(first: u8, length: Length, payload: &[u8]) -> Part {
    Part::Frame { first, length, payload: payload.to_vec(), wrongly_masked: false }
}

pub(crate) fn wrongly_masked(first: u8, payload: &[u8]) -> Part {
    Part::Frame { first, length: Length::Minimal, payload: payload.to_vec(), wrongly_masked: true }
}

fn garbage() -> Part {
    Part::Bytes(b"\xff\xff\x81\x00GET / HTTP/1.1\r\n\r\n".to_vec())
}

/// Payload that is text too, and says something else at every place.
fn payload_of(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|index| b' ' + ((index * 7 + index / 95) % 95) as u8).collect()
}

pub(crate) fn frame_vectors() -> Vec<FrameVector> {
    let mut vectors = rule_vectors();
    vectors.extend(limit_vectors());
    vectors.extend(frame_limit_vectors());
    vectors
}

/// All that says the same in chunks, and the limit that chunks have. The limits on what is gathered are out of their way.
pub(crate) fn streamed_vectors() -> Vec<FrameVector> {
    let mut vectors = rule_vectors();
    vectors.extend(long_frame_vectors());
    vectors.extend(stream_limit_vectors());
    let in_chunks = |limits: &mut Limits| {
        limits.delivery = Delivery::Chunks;
        (limits.message_bytes_max, limits.frame_bytes_max, limits.fragments_max) = (1, 1, 1);
    };
    vectors.into_iter().map(|vector| vector.with(in_chunks)).collect()
}

fn rule_vectors() -> Vec<FrameVector> {
    let mut vectors = sound_frame_vectors();
    vectors.extend(message_vectors());
    vectors.extend(broken_frame_vectors());
    vectors.extend(close_vectors());
    vectors.extend(utf8_vectors());
    vectors
}

/// Each opcode with each length at which the header changes, and a frame behind it.
fn sound_frame_vectors() -> Vec<FrameVector> {
    let mut vectors = Vec::new();
    for (first, name, lengths) in [
        (0x81, "text", &[0, 1, 5, 125, 126, 127][..]),
        (0x82, "binary", &[0, 1, 5, 125, 126, 127]),
        (0x89, "ping", &[0, 1, 5, 125]),
        (0x8a, "pong", &[0, 1, 5, 125]),
    ] {
        for length in lengths {
            let payload = payload_of(*length);
            let told = format!("{name} {}", shown(&payload));
            let parts = vec![frame(first, &payload), frame(0x81, b"next")];
            vectors.push(FrameVector::new(format!("{name} of {length}"), parts, &[&told, "text \"next\""]));
        }
    }
    vectors
}

/// The lengths at which 16 bits end, alone and as the middle of a message. Cut at a subset: see the top of the file.
pub(crate) fn long_frame_vectors() -> Vec<FrameVector> {
    let mut vectors = Vec::new();
    for length in [65_535, 65_536] {
        let payload = payload_of(length);
        for (first, name) in [(0x81, "text"), (0x82, "binary")] {
            let told = format!("{name} {}", shown(&payload));
            let alone = vec![frame(0x89, b"p"), frame(first, &payload), frame(0x8a, b"q")];
            let expected = ["ping \"p\"", &told, "pong \"q\""];
            vectors.push(FrameVector::new(format!("{name} of {length}"), alone, &expected));

            let fragmented =
                vec![frame(first & 0x0f, b"a"), frame(0x00, &payload), frame(0x89, b"p"), frame(0x80, b"z")];
            let told = format!("{name} {}", shown(&[b"a", &payload[..], b"z"].concat()));
            let expected = ["ping \"p\"", &told];
            vectors.push(FrameVector::new(format!("{name} around {length}"), fragmented, &expected));
        }
    }
    vectors
}

/// What RFC 6455 §5.4 allows.
fn message_vectors() -> Vec<FrameVector> {
    let vector = FrameVector::new;
    let euro = "€".as_bytes();
    vec![
        vector("nothing", vec![], &[]),
        vector(
            "two texts, a binary and a ping one behind the other",
            vec![frame(0x81, b"a"), frame(0x81, b"b"), frame(0x82, b"\0"), frame(0x89, b"p")],
            &["text \"a\"", "text \"b\"", "binary \"\\x00\"", "ping \"p\""],
        ),
        vector(
            "text in three",
            vec![frame(0x01, b"ab"), frame(0x00, b"cd"), frame(0x80, b"ef"), frame(0x81, b"g")],
            &["text \"abcdef\"", "text \"g\""],
        ),
        vector(
            "binary in three with controls between",
            vec![
                frame(0x02, b"\xff"),
                frame(0x89, b"p"),
                frame(0x00, b"\xfe"),
                frame(0x8a, b""),
                frame(0x89, b""),
                frame(0x80, b"\xfd"),
            ],
            &["ping \"p\"", "pong \"\"", "ping \"\"", "binary \"\\xff\\xfe\\xfd\""],
        ),
        vector(
            "empty fragments",
            vec![frame(0x01, b""), frame(0x00, b""), frame(0x00, b"x"), frame(0x00, b""), frame(0x80, b"")],
            &["text \"x\""],
        ),
        vector(
            "nothing but empty fragments",
            vec![frame(0x02, b""), frame(0x00, b""), frame(0x80, b"")],
            &["binary \"\""],
        ),
        vector(
            "a character in three frames, a ping amid it",
            vec![frame(0x01, &euro[..1]), frame(0x00, &euro[1..2]), frame(0x89, &euro[..2]), frame(0x80, &euro[2..])],
            &["ping \"\\xe2\\x82\"", "text \"\\xe2\\x82\\xac\""],
        ),
        vector(
            "characters of one to four bytes",
            vec![frame(0x81, "aé€🙂\u{10ffff}\u{d7ff}".as_bytes())],
            &["text \"a\\xc3\\xa9\\xe2\\x82\\xac\\xf0\\x9f\\x99\\x82\\xf4\\x8f\\xbf\\xbf\\xed\\x9f\\xbf\""],
        ),
        vector(
            "characters of one to four bytes, each fragment within one",
            vec![
                frame(0x01, b"a\xc3"),
                frame(0x00, b"\xa9\xe2\x82"),
                frame(0x00, b"\xac\xf0"),
                frame(0x80, b"\x9f\x99\x82"),
            ],
            &["text \"a\\xc3\\xa9\\xe2\\x82\\xac\\xf0\\x9f\\x99\\x82\""],
        ),
        vector(
            "a close amid a message",
            vec![frame(0x01, b"a"), frame(0x88, b"\x03\xe8"), frame(0x80, b"b")],
            &["close 1000 \"\""],
        ),
        vector("half a header", vec![frame(0x81, b"a"), Part::Bytes(b"\x81".to_vec())], &["text \"a\"", "unfinished"]),
        vector("half a message", vec![frame(0x01, b"a")], &["unfinished"]),
        vector("half a frame", vec![announced(0x82, Length::In16(200), b"abc")], &["unfinished"]),
        vector("half a frame of 2^63 - 1", vec![announced(0x02, Length::In64((1 << 63) - 1), b"abc")], &["unfinished"])
            .with(|limits| (limits.message_bytes_max, limits.frame_bytes_max) = (usize::MAX, usize::MAX)),
        vector("half a control frame", vec![frame(0x01, b"a"), Part::Bytes(b"\x89".to_vec())], &["unfinished"]),
    ]
}

impl FrameVector {
    fn with(mut self, change: impl Fn(&mut Limits)) -> Self {
        change(&mut self.limits);
        self
    }
}

/// Each rule that a frame can break, in an idle connection and amid a message; nothing is said after it.
fn broken_frame_vectors() -> Vec<FrameVector> {
    let mut broken: Vec<(String, Part, String)> = Vec::new();
    for (first, name) in
        [(0xc1, "1"), (0xa1, "2"), (0x91, "3"), (0xf2, "1, 2 and 3"), (0xd0, "1 and 3"), (0x99, "3, ping")]
    {
        broken.push((format!("reserved bit {name}"), frame(first, b"x"), "ReservedBits".to_owned()));
    }
    for opcode in (3..=7).chain(0xb..=0xf) {
        let error = format!("ReservedOpcode({opcode})");
        broken.push((format!("opcode {opcode:#x}"), frame(0x80 | opcode, b"x"), error.clone()));
        broken.push((format!("opcode {opcode:#x} without FIN"), frame(opcode, b"x"), error));
    }
    for (opcode, name) in [(0x8, "close"), (0x9, "ping"), (0xa, "pong")] {
        broken.push((format!("{name} without FIN"), frame(opcode, b"\x03\xe8"), "ControlFragmented".to_owned()));
        broken.push((format!("{name} of 126"), frame(0x80 | opcode, &payload_of(126)), "ControlTooLong".to_owned()));
        let long = announced(0x80 | opcode, Length::In64(70_000), b"x");
        broken.push((format!("{name} of 70000"), long, "ControlTooLong".to_owned()));
        let padded = announced(0x80 | opcode, Length::In16(2), b"\x03\xe8");
        broken.push((format!("{name} of 2 in 16 bits"), padded, "ControlTooLong".to_owned()));
    }
    for length in [0, 1, 125] {
        let part = announced(0x82, Length::In16(length), &payload_of(usize::from(length)));
        broken.push((format!("{length} in 16 bits"), part, "LengthNotMinimal".to_owned()));
    }
    for length in [0, 1, 125, 126, 127, 0xffff] {
        let part = announced(0x82, Length::In64(length), b"x");
        broken.push((format!("{length} in 64 bits"), part, "LengthNotMinimal".to_owned()));
    }
    for length in [1 << 63, (1 << 63) + 1, u64::MAX] {
        let part = announced(0x82, Length::In64(length), b"x");
        broken.push((format!("{length} with the sign bit"), part, "LengthSignBit".to_owned()));
    }

    let mut vectors = Vec::new();
    for (name, part, error) in &broken {
        let failed = format!("failed 1002 {error}");
        let after = [part.clone(), frame(0x81, b"after"), garbage()];
        let idle = [&[frame(0x81, b"before")], &after[..]].concat();
        vectors.push(FrameVector::new(name.clone(), idle, &["text \"before\"", &failed]));
        let amid = [&[frame(0x01, b"begun"), frame(0x89, b"p")], &after[..]].concat();
        vectors.push(FrameVector::new(format!("{name}, amid a message"), amid, &["ping \"p\"", &failed]));
    }
    for (name, first) in [("text", 0x81), ("binary", 0x82), ("ping", 0x89), ("close", 0x88), ("first fragment", 0x01)] {
        let parts = vec![frame(0x81, b"a"), wrongly_masked(first, b"\x03\xe8"), frame(0x81, b"b")];
        vectors.push(FrameVector::new(format!("{name} masked wrongly"), parts, &["text \"a\"", "failed MASK"]));
    }
    let order = |name: &str, parts: &[Part], expected: &[&str]| {
        FrameVector::new(name, [parts, &[frame(0x81, b"after"), garbage()]].concat(), expected)
    };
    let orphan = "failed 1002 ContinuationWithoutMessage";
    let nested = "failed 1002 MessageInsideMessage";
    vectors.extend([
        order("continuation first", &[frame(0x80, b"x")], &[orphan]),
        order("continuation first, not the last", &[frame(0x00, b"")], &[orphan]),
        order("continuation after a message", &[frame(0x81, b"a"), frame(0x80, b"x")], &["text \"a\"", orphan]),
        order(
            "continuation after a message in fragments",
            &[frame(0x01, b"a"), frame(0x80, b"b"), frame(0x80, b"c")],
            &["text \"ab\"", orphan],
        ),
        order("text inside text", &[frame(0x01, b"a"), frame(0x81, b"b")], &[nested]),
        order("text inside an empty one", &[frame(0x01, b""), frame(0x81, b"")], &[nested]),
        order("binary inside text", &[frame(0x01, b"a"), frame(0x82, b"b")], &[nested]),
        order(
            "first fragment inside binary",
            &[frame(0x02, b"a"), frame(0x89, b""), frame(0x02, b"b")],
            &["ping \"\"", nested],
        ),
    ]);
    vectors
}

/// RFC 6455 §5.5.1, §7.4: what a close frame may say; nothing is heard after it, sound or not.
fn close_vectors() -> Vec<FrameVector> {
    let mut vectors = Vec::new();
    let mut close = |name: String, payload: &[u8], told: &str| {
        let parts = vec![frame(0x88, payload), frame(0x88, b"\x03\xe9"), frame(0x81, b"after"), garbage()];
        vectors.push(FrameVector::new(name, parts, &[told]));
    };
    close("close without a payload".to_owned(), b"", "close");
    close("half a code".to_owned(), b"\x03", "failed 1002 ClosePayloadTooShort");
    for code in [1000u16, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999] {
        close(format!("close {code}"), &code.to_be_bytes(), &format!("close {code} \"\""));
    }
    for code in [0u16, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 1999, 2000, 2999, 5000, 9999, 0x7fff, 0x8000, 0xffff]
    {
        close(format!("close {code}"), &code.to_be_bytes(), &format!("failed 1002 CloseCodeInvalid({code})"));
    }
    close("a reason".to_owned(), b"\x03\xe8bye \xe2\x9c\x93", "close 1000 \"bye \\xe2\\x9c\\x93\"");
    let longest = [b"\x03\xe8", &payload_of(123)[..]].concat();
    close("the longest reason".to_owned(), &longest, &format!("close 1000 {}", shown(&longest[2..])));
    for reason in [&b"\xff"[..], b"a\xc3", b"\xe2\x9c", b"\xed\xa0\x80", b"\xc0\xaf", b"ok\x80ok"] {
        let payload = [b"\x03\xe8", reason].concat();
        close(format!("reason {}", reason.escape_ascii()), &payload, "failed 1007 CloseReasonNotUtf8");
    }
    // A code that is wrong is wrong before its reason is read.
    close("bad code, bad reason".to_owned(), b"\x03\xed\xff", "failed 1002 CloseCodeInvalid(1005)");
    vectors
}

/// RFC 6455 §8.1: text that is not UTF-8, whole, in fragments, and in a frame that never ends.
fn utf8_vectors() -> Vec<FrameVector> {
    let invalid: &[&[u8]] = &[
        b"\x80",
        b"\xbf",
        b"\xc0\x80",
        b"\xc1\xbf",
        b"\xc2\x7f",
        b"\xe0\x80\x80",
        b"\xe0\x9f\xbf",
        b"\xed\xa0\x80",
        b"\xed\xbf\xbf",
        b"\xe2\x82A",
        b"\xf0\x80\x80\x80",
        b"\xf0\x8f\xbf\xbf",
        b"\xf4\x90\x80\x80",
        b"\xf5\x80\x80\x80",
        b"\xfe",
        b"\xff",
        b"\xf0\x9f\x99\x7f",
    ];
    let failed = "failed 1007 TextNotUtf8";
    let mut vectors = Vec::new();
    for bytes in invalid {
        let shown = bytes.escape_ascii();
        let text = [b"ok ", *bytes, b" ok"].concat();
        let whole = vec![frame(0x81, b"a"), frame(0x81, &text), frame(0x81, b"after"), garbage()];
        vectors.push(FrameVector::new(format!("text {shown}"), whole, &["text \"a\"", failed]));
        for cut in 3..=3 + bytes.len() {
            let (first, second) = text.split_at(cut);
            let parts = vec![frame(0x01, first), frame(0x89, b"\xff"), frame(0x80, second), frame(0x81, b"after")];
            // Where the proof lies in the first fragment, the ping behind it is not heard any more.
            let proven = std::str::from_utf8(first).is_err_and(|error| error.error_len().is_some());
            let expected = if proven { &[failed][..] } else { &["ping \"\\xff\"", failed] };
            vectors.push(FrameVector::new(format!("text {shown} in fragments, cut at {cut}"), parts, expected));
        }
        let endless = vec![announced(0x81, Length::In16(1_000), &text)];
        vectors.push(FrameVector::new(format!("text {shown}, its frame unfinished"), endless, &[failed]));
    }
    for unfinished in [&b"\xc3"[..], b"\xe2\x82", b"\xf0\x9f\x99", b"\xed\x9f"] {
        let shown = unfinished.escape_ascii();
        let whole = vec![frame(0x81, unfinished), frame(0x81, b"after")];
        vectors.push(FrameVector::new(format!("text ends with {shown}"), whole, &[failed]));
        let parts = vec![frame(0x01, unfinished), frame(0x89, b""), frame(0x80, b""), frame(0x81, b"after")];
        vectors.push(FrameVector::new(format!("text in fragments ends with {shown}"), parts, &["ping \"\"", failed]));
    }
    // Binary may be anything.
    let parts = vec![frame(0x02, b"\xff\xfe"), frame(0x80, b"\xc0"), frame(0x82, b"\xed\xa0")];
    vectors.push(FrameVector::new(
        "binary is not text",
        parts,
        &["binary \"\\xff\\xfe\\xc0\"", "binary \"\\xed\\xa0\""],
    ));
    vectors
}

/// RFC 6455 §10.4: ten bytes and three fragments are the limit here.
fn limit_vectors() -> Vec<FrameVector> {
    let vector = |name: &str, parts: &[Part], expected: &[&str]| {
        let small = |limits: &mut Limits| (limits.message_bytes_max, limits.fragments_max) = (10, 3);
        FrameVector::new(name, parts.to_vec(), expected).with(small)
    };
    let too_long = "failed 1009 MessageTooLong";
    let too_many = "failed 1008 FragmentsTooMany";
    let digits = b"0123456789";
    let over = b"0123456789a";
    let huge = Length::In64((1 << 63) - 1);
    let five = frame(0x02, b"01234");
    vec![
        vector("the limit", &[frame(0x82, digits), frame(0x81, b"")], &["binary \"0123456789\"", "text \"\""]),
        vector("one over the limit", &[frame(0x81, b"a"), frame(0x82, over)], &["text \"a\"", too_long]),
        vector("far over the limit", &[announced(0x82, huge, b"abc")], &[too_long]),
        vector("the limit in sum", &[five.clone(), frame(0x80, b"56789")], &["binary \"0123456789\""]),
        vector(
            "one over in sum",
            &[five.clone(), frame(0x89, b"p"), frame(0x80, b"56789a")],
            &["ping \"p\"", too_long],
        ),
        vector("a sum that would overflow", &[frame(0x02, b"0"), announced(0x80, huge, b"1")], &[too_long]),
        vector("a long first fragment", &[frame(0x01, over), frame(0x80, b"")], &[too_long]),
        vector(
            "a control frame is no part of the sum",
            &[five, frame(0x89, over), frame(0x80, b"5")],
            &["ping \"0123456789a\"", "binary \"012345\""],
        ),
        vector("three fragments", &[frame(0x02, b"0"), frame(0x00, b""), frame(0x80, b"1")], &["binary \"01\""]),
        vector(
            "four fragments",
            &[frame(0x02, b"0"), frame(0x00, b"1"), frame(0x00, b"2"), frame(0x80, b"3")],
            &[too_many],
        ),
        vector(
            "four empty fragments",
            &[frame(0x02, b""), frame(0x00, b""), frame(0x00, b""), frame(0x80, b"")],
            &[too_many],
        ),
        vector("too long and not UTF-8", &[frame(0x81, b"\xff0123456789")], &[too_long]),
    ]
}

/// RFC 6455 §10.4: a frame may have six bytes here, a message ten.
fn frame_limit_vectors() -> Vec<FrameVector> {
    let vector = |name: &str, parts: &[Part], expected: &[&str]| {
        let small = |limits: &mut Limits| (limits.message_bytes_max, limits.frame_bytes_max) = (10, 6);
        FrameVector::new(name, parts.to_vec(), expected).with(small)
    };
    let frame_too_long = "failed 1009 FrameTooLong";
    let too_long = "failed 1009 MessageTooLong";
    let six = b"012345";
    let seven = b"0123456";
    vec![
        vector("the longest frame", &[frame(0x82, six), frame(0x81, b"")], &["binary \"012345\"", "text \"\""]),
        vector("a long frame", &[frame(0x81, b"a"), frame(0x82, seven)], &["text \"a\"", frame_too_long]),
        vector("a long frame begins a message", &[frame(0x02, seven), frame(0x80, b"")], &[frame_too_long]),
        vector(
            "a long frame ends a message",
            &[frame(0x02, b"012"), frame(0x89, b"p"), frame(0x80, seven)],
            &["ping \"p\"", frame_too_long],
        ),
        vector("frames that are short enough", &[frame(0x02, six), frame(0x80, b"6789")], &["binary \"0123456789\""]),
        vector("a control frame is no such frame", &[frame(0x89, seven)], &["ping \"0123456\""]),
        vector("a long frame, not UTF-8", &[frame(0x81, b"\xff012345")], &[frame_too_long]),
        // Both limits are broken.
        vector("a long frame of a long message", &[frame(0x82, b"0123456789a")], &[too_long]),
        vector("a long frame makes a long message", &[frame(0x02, six), frame(0x80, seven)], &[too_long]),
    ]
}

/// RFC 6455 §10.4: ten bytes of a message in chunks are the limit here.
fn stream_limit_vectors() -> Vec<FrameVector> {
    let vector = |name: &str, parts: &[Part], expected: &[&str]| {
        let name = format!("in chunks, {name}");
        FrameVector::new(name, parts.to_vec(), expected).with(|limits| limits.streamed_bytes_max = 10)
    };
    let too_long = "failed 1009 MessageTooLong";
    let digits = b"0123456789";
    let over = b"0123456789a";
    let huge = Length::In64((1 << 63) - 1);
    let five = frame(0x02, b"01234");
    vec![
        vector("the limit", &[frame(0x82, digits), frame(0x81, b"")], &["binary \"0123456789\"", "text \"\""]),
        vector("one over the limit", &[frame(0x81, b"a"), frame(0x82, over)], &["text \"a\"", too_long]),
        vector("far over the limit", &[announced(0x82, huge, b"abc")], &[too_long]),
        vector("the limit in sum", &[five.clone(), frame(0x80, b"56789")], &["binary \"0123456789\""]),
        vector(
            "one over in sum",
            &[five.clone(), frame(0x89, b"p"), frame(0x80, b"56789a")],
            &["ping \"p\"", too_long],
        ),
        vector("a sum that would overflow", &[five.clone(), announced(0x80, huge, b"1")], &[too_long]),
        vector("a long first fragment", &[frame(0x01, over), frame(0x80, b"")], &[too_long]),
        vector(
            "a control frame is no part of the sum",
            &[five, frame(0x89, over), frame(0x80, b"5")],
            &["ping \"0123456789a\"", "binary \"012345\""],
        ),
        vector(
            "each message is counted for itself",
            &[frame(0x01, digits), frame(0x80, b""), frame(0x81, digits)],
            &["text \"0123456789\"", "text \"0123456789\""],
        ),
        vector("too long and not UTF-8", &[frame(0x81, b"\xff0123456789")], &[too_long]),
    ]
}
