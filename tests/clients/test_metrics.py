"""/metrics, read by Prometheus's own parser for OpenMetrics, and the paths beside it; run by scripts/clients."""

import json
import os
import urllib.error
import urllib.request

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from websockets.sync.client import connect

from server import Server

URL = os.environ["TEST_SERVER_URL"]
CONTENT_TYPE = "application/openmetrics-text; version=1.0.0; charset=utf-8"
CAUSES = {
    "peer_closed", "closed", "peer_gone", "protocol", "idle_timeout", "pong_timeout", "close_timeout", "stalled",
    "lifetime_over", "slow_consumer", "rate_exceeded", "out_of_memory", "handler_panicked", "shutdown",
}  # fmt: skip


def get(path, url=URL, **headers):
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(urllib.request.Request(url + path, headers=headers), timeout=10) as answer:
        return answer.headers, answer.read().decode()


def scrape(url=URL):
    """The families by name; the parser refuses whatever is not OpenMetrics."""
    headers, text = get("/metrics", url)
    assert headers["content-type"] == CONTENT_TYPE
    assert text.endswith("# EOF\n")
    families = list(text_string_to_metric_families(text))
    names = [family.name for family in families]
    assert len(set(names)) == len(names)
    return {family.name: family for family in families}


def total(families, name, **labels):
    """The sum over the shards, of the samples with these labels."""
    samples = families[name].samples
    return sum(sample.value for sample in samples if labels.items() <= sample.labels.items())


def test_each_family_has_type_help_and_a_sample_for_each_shard():
    with Server([*json.loads(os.environ["TEST_SERVER_COMMAND"]), "--shards", "3"]) as server:
        families = scrape(server.url)
        server.stop()
    for name, family in families.items():
        assert family.type in {"gauge", "counter", "info"} and family.documentation, name
        if name.startswith("ringwave_") and name not in {"ringwave_build", "ringwave_log_lines_lost"}:
            assert {sample.labels["shard"] for sample in family.samples} == {"0", "1", "2"}, name
    dropped = families["ringwave_messages_dropped"].samples
    assert {(sample.name, sample.labels["via"], sample.labels["reason"]) for sample in dropped} == {
        ("ringwave_messages_dropped_total", via, reason)
        for via in ("send", "publish")
        for reason in ("close", "new", "old", "conflated", "memory")
    }
    assert {sample.labels["cause"] for sample in families["ringwave_sessions_ended"].samples} == CAUSES
    assert {sample.labels["reason"] for sample in families["ringwave_sessions_refused"].samples} == {
        "full", "rate", "address",
    }  # fmt: skip
    assert families["ringwave_memory_bytes"].unit == "bytes"
    assert families["process_start_time_seconds"].samples[0].value > 1_700_000_000
    assert families["process_resident_memory_bytes"].samples[0].value > 1 << 20


def test_counters_follow_what_happens():
    before = scrape()
    with connect(URL.replace("http://", "ws://") + "/echo", proxy=None) as client:
        for number in range(7):
            client.send(str(number))
            assert client.recv(timeout=10) == str(number)
        during = scrape()
        assert total(during, "ringwave_sessions") >= 1
    after = scrape()

    def rose(name, **labels):
        return total(after, name, **labels) - total(before, name, **labels)

    assert rose("ringwave_sessions_opened") == 1
    assert rose("ringwave_sessions_ended", cause="peer_closed") == 1
    assert (rose("ringwave_messages_received"), rose("ringwave_messages_sent")) == (7, 7)
    assert rose("ringwave_messages_dropped") == 0


def test_readyz_is_ready_and_metrics_take_no_post():
    assert get("/readyz")[1] == "ready\n"
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with pytest.raises(urllib.error.HTTPError) as refused:
        opener.open(urllib.request.Request(f"{URL}/metrics", data=b"x", method="POST"), timeout=10)
    assert refused.value.code == 405
