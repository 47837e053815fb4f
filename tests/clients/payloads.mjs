// The payloads the Node and browser clients send. Each function stands on its own, so that it can also be
// handed to a page as source text.

// The bounds of the three length encodings of RFC 6455 §5.2, and a message of many reads.
export const SIZES = [0, 1, 125, 126, 65_535, 65_536, 1_000_000];

/** A text of `size` bytes in UTF-8, with characters of one to four bytes where they fit. */
export function textOf(size) {
  return 'aé€😀'.repeat(Math.floor(size / 10)) + 'x'.repeat(size % 10);
}

export function bytesOf(size) {
  return Uint8Array.from({ length: size }, (_, index) => index % 251);
}
