"""curl as a client: the plain HTTP answers, and the upgrade as RFC 6455 §1.3 prints it; run by scripts/clients."""

import os
import subprocess

URL = os.environ["TEST_SERVER_URL"]
CURL = ["curl", "--http1.1", "--silent", "--show-error", "--noproxy", "*", "--max-time", "10"]
UPGRADE = [
    "--header", "Connection: Upgrade",
    "--header", "Upgrade: websocket",
    "--header", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
]  # fmt: skip


def curl(*arguments):
    """Status, head (lower-case names) and body of an answer that ends."""
    done = subprocess.run([*CURL, "--include", *arguments], capture_output=True, text=True, timeout=20)
    assert done.returncode == 0, done.stderr
    head, _, body = done.stdout.partition("\n\n")
    return *parse(head.splitlines()), body


def curl_upgraded(*arguments):
    """Status and head of an answer that stays open: read until the head ends, then curl is ended."""
    # `--include` would be held in curl's buffer until a body comes; `--dump-header` is written line by line.
    command = [*CURL, "--dump-header", "-", *UPGRADE, *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            lines = []
            while (line := process.stdout.readline().rstrip()) != "":
                lines.append(line)
            return parse(lines)
        finally:
            process.kill()


def parse(lines):
    assert lines, "no answer"
    fields = [line.split(":", 1) for line in lines[1:]]
    return int(lines[0].split()[1]), {name.lower(): value.strip() for name, value in fields}


def test_upgrade_answers_101_and_the_accept_of_the_rfc():
    status, head = curl_upgraded("--header", "Sec-WebSocket-Version: 13", f"{URL}/echo")
    assert status == 101
    assert head["sec-websocket-accept"] == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    assert head["upgrade"].lower() == "websocket"
    assert head["connection"].lower() == "upgrade"
    # RFC 6455 §4.2.2: what the client did not offer is not selected.
    assert "sec-websocket-protocol" not in head
    assert "sec-websocket-extensions" not in head


def test_version_12_is_answered_with_426_and_the_version_spoken():
    status, head, _ = curl(*UPGRADE, "--header", "Sec-WebSocket-Version: 12", f"{URL}/echo")
    assert status == 426
    assert head["sec-websocket-version"] == "13"


def test_livez_is_ok():
    status, _, body = curl(f"{URL}/livez")
    assert (status, body.strip()) == (200, "ok")


def test_the_page_is_html():
    status, head, body = curl(f"{URL}/")
    assert status == 200
    assert head["content-type"].startswith("text/html")
    assert 'id="connect"' in body or "id=connect" in body


def test_head_of_the_page_has_no_body():
    status, head, body = curl("--head", f"{URL}/")
    assert (status, body) == (200, "")
    assert head["content-type"].startswith("text/html")


def test_an_unknown_path_is_404():
    assert curl(f"{URL}/no-such-path")[0] == 404
