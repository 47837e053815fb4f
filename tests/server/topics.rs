//! Topics and messages from elsewhere: within a shard, across shards, from other threads.

use crate::support::{Client, Ended, Event, Received, TestServer, eventually};
use ringwave::{CloseCause, CloseCode, Prepared};
use std::sync::Barrier;

#[test]
fn subscribers_get_what_is_published_and_others_do_not() {
    let (server, _events) = TestServer::desk(|_| {});
    let [mut a, mut b, mut both, mut none] =
        ["a", "b", "both", "none"].map(|name| server.client(&format!("/desk?{name}")));
    assert_eq!(a.ask("subscribe a"), "Ok(true)");
    assert_eq!(a.ask("subscribe a"), "Ok(false)");
    assert_eq!(b.ask("subscribe b"), "Ok(true)");
    assert_eq!(both.ask("subscribe a"), "Ok(true)");
    assert_eq!(both.ask("subscribe b"), "Ok(true)");
    assert_eq!((none.ask("count a"), none.ask("count b"), none.ask("count c")), ("2".into(), "2".into(), "0".into()));
    assert_eq!((both.ask("subscribed a"), none.ask("subscribed a")), ("true".into(), "false".into()));

    // One that is not subscribed may publish; one that is hears itself, before the answer.
    assert_eq!(none.ask("publish a from none"), "2 took it");
    assert_eq!((a.text(), both.text()), ("from none".into(), "from none".into()));
    assert_eq!(b.ask("publish b from b"), "from b");
    assert_eq!(b.text(), "2 took it");
    assert_eq!(both.text(), "from b");
    assert_eq!(b.ask("publish c nobody hears"), "0 took it");

    // Except to itself.
    assert_eq!(both.ask("publish_except_self a to the other"), "1 took it");
    assert_eq!(a.text(), "to the other");
    assert_eq!(none.ask("publish_except_self a to both"), "2 took it");
    assert_eq!((a.text(), both.text()), ("to both".into(), "to both".into()));

    // Whoever leaves hears no more; whoever is gone has left.
    assert_eq!((both.ask("unsubscribe a"), both.ask("unsubscribe a")), ("true".into(), "false".into()));
    assert_eq!(none.ask("publish a without both"), "1 took it");
    assert_eq!(a.text(), "without both");
    a.close();
    assert_eq!(none.ask("publish a nobody is left"), "0 took it");
    assert_eq!(both.ask("publish b still b"), "still b");
    assert_eq!((both.text(), b.text()), ("2 took it".into(), "still b".into()));
    assert_eq!(server.handle().stats().topics, 1, "a topic without subscribers is no topic");
}

#[test]
fn names_and_numbers_of_topics_have_bounds() {
    let (server, _events) = TestServer::desk(|_| {});
    let mut client = server.client("/desk");
    assert_eq!(client.ask("subscribe "), "Err(NameLength)");
    assert_eq!(client.ask(&format!("subscribe {}", "x".repeat(256))), "Err(NameLength)");
    assert_eq!(client.ask(&format!("subscribe {}", "x".repeat(255))), "Ok(true)");
    for number in 1..1_024 {
        client.put(&format!("subscribe {number}"));
    }
    client.flush();
    for _ in 1..1_024 {
        assert_eq!(client.text(), "Ok(true)");
    }
    assert_eq!(client.ask("subscribe more"), "Err(TooMany)");
    assert_eq!(client.ask("subscribe 1000"), "Ok(false)");
    assert_eq!((client.ask("unsubscribe 1000"), client.ask("subscribe more")), ("true".into(), "Ok(true)".into()));
    client.close();
    eventually("the topics are gone with their subscriber", || server.handle().stats().topics == 0);
}

/// A client on each of two shards, the first of them first.
fn client_on_each_shard(server: &TestServer, name: &str) -> [Client; 2] {
    let mut found = [None, None];
    while found.iter().any(Option::is_none) {
        let mut client = server.client(&format!("/desk?{name}"));
        let shard = if client.ask("shard") == "0" { 0 } else { 1 };
        found[shard].get_or_insert(client);
    }
    found.map(|client| client.expect("both are found"))
}

#[test]
fn publishing_crosses_shards() {
    let (server, _events) = TestServer::desk(|config| config.shards = 2);
    let mut subscribers = client_on_each_shard(&server, "subscriber");
    let mut publishers = client_on_each_shard(&server, "publisher");
    for subscriber in &mut subscribers {
        assert_eq!(subscriber.ask("subscribe news"), "Ok(true)");
    }
    for (shard, publisher) in publishers.iter_mut().enumerate() {
        // The answer counts the publisher's own shard.
        assert_eq!(publisher.ask(&format!("publish news from {shard}")), "1 took it");
        for subscriber in &mut subscribers {
            assert_eq!(subscriber.text(), format!("from {shard}"));
        }
    }
    let [first, second] = &mut subscribers;
    assert_eq!(first.ask("publish_except_self news to the other shard"), "0 took it");
    assert_eq!(second.text(), "to the other shard");
    assert_eq!(second.ask("publish news to all"), "to all");
    assert_eq!((second.text(), first.text()), ("1 took it".into(), "to all".into()));
    assert_eq!(first.ask("unsubscribe news"), "true");
    assert_eq!(publishers[0].ask("publish news to the second only"), "0 took it");
    assert_eq!(second.text(), "to the second only");
    assert_eq!(first.ask("subscribed news"), "false");
}

/// One publisher's messages stay in order on every shard, even in a rush.
#[test]
fn a_rush_across_shards_arrives_whole_and_in_order() {
    const COUNT: usize = 2_000;
    let (server, _events) = TestServer::desk(|config| config.shards = 2);
    let mut subscribers = client_on_each_shard(&server, "subscriber");
    for subscriber in &mut subscribers {
        assert_eq!(subscriber.ask("subscribe news"), "Ok(true)");
    }
    let [mut publisher, _] = client_on_each_shard(&server, "publisher");
    for number in 0..COUNT {
        publisher.put(&format!("publish news {number}"));
    }
    publisher.flush();
    for subscriber in &mut subscribers {
        for number in 0..COUNT {
            assert_eq!(subscriber.text(), number.to_string());
        }
    }
    for _ in 0..COUNT {
        assert_eq!(publisher.text(), "1 took it");
    }
    assert_eq!(server.handle().stats().posts_dropped, 0);
}

#[test]
fn other_threads_publish_send_and_close() {
    let (server, events) = TestServer::desk(|config| config.shards = 2);
    let mut clients = Vec::new();
    for mut client in client_on_each_shard(&server, "x") {
        assert_eq!(client.ask("subscribe news"), "Ok(true)");
        clients.push(client);
    }
    // The last two that were opened may not be those kept: each is asked for by what it is sent.
    let mut keys = Vec::new();
    while let Some(event) = events.try_next() {
        if let Event::Open { key, .. } = event {
            keys.push(key);
        }
    }
    let handle = server.handle();
    std::thread::scope(|scope| {
        scope.spawn(|| handle.publish("news", "to all").expect("the mailboxes have room"));
    });
    for client in &mut clients {
        assert_eq!(client.text(), "to all");
    }
    // Text, binary, prepared, from several threads at once.
    let start = Barrier::new(4);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                start.wait();
                for _ in 0..100 {
                    handle.publish_prepared("news", &Prepared::new(b"binary")).expect("the mailboxes have room");
                }
            });
        }
    });
    for client in &mut clients {
        for _ in 0..400 {
            assert_eq!(client.next(), Received::Binary(b"binary".to_vec()));
        }
    }
    for key in &keys {
        handle.send(*key, &format!("for {key}")).expect("the mailbox has room");
        handle.close(*key, CloseCode::SERVICE_RESTART, "come back").expect("the mailbox has room");
        handle.send(*key, "too late").expect("the mailbox has room");
    }
    for client in &mut clients {
        let text = client.text();
        assert!(keys.iter().any(|key| text == format!("for {key}")), "{text:?}");
        assert_eq!(client.next(), Received::close(1012, "come back"));
        client.put_close(Some((1012, ""))).flush();
        assert_eq!(client.next(), Received::End(Ended::Orderly));
    }
}

#[test]
fn a_key_names_one_session_for_ever() {
    let (server, events) = TestServer::desk(|_| {});
    let handle = server.handle();
    let mut old_keys = Vec::new();
    // Every one takes the place of the one before it.
    for round in 0..20 {
        let mut client = server.client("/desk?tenant");
        let (_, key) = events.opened();
        assert!(!old_keys.contains(&key), "in round {round}");
        for old in &old_keys {
            handle.send(*old, "for another").expect("the mailbox has room");
            handle.close(*old, CloseCode::NORMAL, "for another").expect("the mailbox has room");
        }
        handle.send(key, "for you").expect("the mailbox has room");
        assert_eq!(client.text(), "for you");
        assert_eq!(client.ask("shard"), "0");
        client.close();
        assert_eq!(events.closed().1, CloseCause::PeerClosed(Some((CloseCode::NORMAL, String::new()))));
        eventually("the place is free", || handle.stats().connections == 0);
        old_keys.push(key);
    }
}

#[test]
fn an_ended_server_swallows_what_is_posted() {
    let (server, _events) = TestServer::desk(|_| {});
    let handle = server.handle();
    server.end(std::time::Duration::ZERO).expect("it ends");
    for _ in 0..100_000 {
        handle.publish("news", "x").expect("nobody is there to be behind");
    }
    handle.shutdown(std::time::Duration::ZERO);
}
