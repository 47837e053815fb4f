//! The loops around a WebSocket that is a `Stream` and a `Sink` of messages.
//!
//! What was read at once is answered at once: messages are taken up while there are any, then all answers are fed, then
//! flushed. Reading and feeding do not alternate, since some sockets flush whenever they are read from.

use crate::BATCH_MAX;
use crate::room::Room;
use futures_util::{FutureExt, Sink, SinkExt, Stream, StreamExt};

/// Sends each message back as `answer` has it: nothing for control frames.
pub async fn echo<S, I, M, E>(mut socket: S, answer: impl Fn(I) -> Result<Option<M>, E>) -> Result<(), E>
where
    S: Stream<Item = I> + Sink<M, Error = E> + Unpin,
{
    let mut batch = Vec::new();
    while let Some(first) = socket.next().await {
        batch.extend(answer(first)?);
        take_ready(&mut socket, &answer, &mut batch)?;
        send(&mut socket, &mut batch).await?;
    }
    Ok(())
}

/// Sends each message, as `answer` has it, to all in the room, and what the room says to this one.
pub async fn fan_out<S, I, M, E>(
    mut socket: S,
    room: &Room<M>,
    answer: impl Fn(I) -> Result<Option<M>, E>,
) -> Result<(), E>
where
    S: Stream<Item = I> + Sink<M, Error = E> + Unpin,
    M: Clone,
{
    let (mut member, _) = room.join();
    let mut incoming = Vec::new();
    let mut outgoing = Vec::new();
    loop {
        tokio::select! {
            biased;
            () = member.receive(&mut outgoing) => send(&mut socket, &mut outgoing).await?,
            first = socket.next() => {
                let Some(first) = first else { return Ok(()) };
                incoming.extend(answer(first)?);
                take_ready(&mut socket, &answer, &mut incoming)?;
                for message in incoming.drain(..) {
                    room.publish(&message);
                }
            }
        }
    }
}

/// Takes up what can be read without waiting.
fn take_ready<S, I, M, E>(
    socket: &mut S,
    answer: &impl Fn(I) -> Result<Option<M>, E>,
    batch: &mut Vec<M>,
) -> Result<(), E>
where
    S: Stream<Item = I> + Unpin,
{
    for _ in 1..BATCH_MAX {
        // An end is told again by whoever waits next.
        let Some(Some(message)) = socket.next().now_or_never() else { break };
        batch.extend(answer(message)?);
    }
    Ok(())
}

async fn send<S, M, E>(socket: &mut S, batch: &mut Vec<M>) -> Result<(), E>
where
    S: Sink<M, Error = E> + Unpin,
{
    for message in batch.drain(..) {
        socket.feed(message).await?;
    }
    socket.flush().await
}
