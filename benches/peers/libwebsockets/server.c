/* The peer on libwebsockets, as Debian has it, on its libuv loop: the one of its own is on poll(2), which asks for all
 * connections at each turn.
 *
 * A message that came whole is queued whole. When the library says that a connection may be written to, as much of its
 * queue leaves as the system takes. In a fan-out all queues hold the same message; the library writes its header into
 * the room in front of it, which is the same each time, so it is not copied. */

#include <libwebsockets.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MESSAGE_BYTES_MAX (64u << 20)
/* What is read at once, and given to us at once. */
#define READ_BYTES (128u << 10)
/* Handshakes that are read at the same time. */
#define HANDSHAKES_MAX 4096

enum service { NONE, ECHO, FAN_OUT };

/* A message with room for its header in front. */
struct message {
    unsigned holders;
    enum lws_write_protocol kind;
    size_t length, capacity;
    unsigned char bytes[]; /* LWS_PRE, then the payload. */
};

struct queued {
    struct queued *next;
    struct message *message;
};

struct connection {
    enum service service;
    struct lws *wsi;
    struct lws_dll2 membership;
    struct message *incoming;
    struct queued *first, **last;
};

static struct lws_dll2_owner members;

static void release(struct message *message) {
    if (message && !--message->holders)
        free(message);
}

/* Adds what came to the message that it belongs to; 0 if there is no room. */
static struct message *grown(struct message *message, const void *bytes, size_t length, size_t remaining) {
    size_t had = message ? message->length : 0, needed = had + length + remaining;
    if (needed > MESSAGE_BYTES_MAX)
        return NULL;
    if (!message || message->capacity < needed) {
        struct message *larger = realloc(message, sizeof *larger + LWS_PRE + needed);
        if (!larger)
            return NULL;
        message = larger;
        message->capacity = needed;
    }
    memcpy(message->bytes + LWS_PRE + had, bytes, length);
    message->length = had + length;
    message->holders = 1;
    return message;
}

static int enqueue(struct connection *connection, struct message *message) {
    struct queued *queued = malloc(sizeof *queued);
    if (!queued)
        return -1;
    message->holders++;
    queued->message = message;
    queued->next = NULL;
    if (!connection->first)
        lws_callback_on_writable(connection->wsi);
    *connection->last = queued;
    connection->last = &queued->next;
    return 0;
}

static void dequeue(struct connection *connection) {
    struct queued *queued = connection->first;
    connection->first = queued->next;
    if (!connection->first)
        connection->last = &connection->first;
    release(queued->message);
    free(queued);
}

static int publish(struct connection *connection, struct message *message) {
    if (connection->service == ECHO)
        return enqueue(connection, message);
    lws_start_foreach_dll(struct lws_dll2 *, place, members.head) {
        if (enqueue(lws_container_of(place, struct connection, membership), message))
            return -1;
    } lws_end_foreach_dll(place);
    return 0;
}

static int received(struct connection *connection, struct lws *wsi, const void *bytes, size_t length) {
    size_t remaining = lws_remaining_packet_payload(wsi);
    struct message *message = grown(connection->incoming, bytes, length, remaining);
    if (!message)
        return -1;
    connection->incoming = message;
    if (remaining || !lws_is_final_fragment(wsi))
        return 0;
    message->kind = lws_frame_is_binary(wsi) ? LWS_WRITE_BINARY : LWS_WRITE_TEXT;
    connection->incoming = NULL;
    int failed = publish(connection, message);
    release(message);
    return failed;
}

static int writable(struct connection *connection, struct lws *wsi) {
    while (connection->first) {
        struct message *message = connection->first->message;
        if (lws_write(wsi, message->bytes + LWS_PRE, message->length, message->kind) < (int) message->length)
            return -1;
        dequeue(connection);
        /* What the system did not take is kept by the library, which then wants no more until that is gone. To ask
         * the system first, lws_send_pipe_choked, is a call for each message. */
        if (connection->first && lws_partial_buffered(wsi)) {
            lws_callback_on_writable(wsi);
            break;
        }
    }
    return 0;
}

static void opened(struct connection *connection, struct lws *wsi) {
    char path[64] = "";
    /* The query is not part of it. A longer path is none of ours. */
    lws_hdr_copy(wsi, path, sizeof path, WSI_TOKEN_GET_URI);
    connection->service = !strcmp(path, "/echo") ? ECHO : !strncmp(path, "/ws", 3) ? FAN_OUT : NONE;
    connection->wsi = wsi;
    connection->last = &connection->first;
    if (connection->service == FAN_OUT)
        lws_dll2_add_tail(&connection->membership, &members);
}

static void closed(struct connection *connection) {
    lws_dll2_remove(&connection->membership);
    release(connection->incoming);
    while (connection->first)
        dequeue(connection);
}

static int on_event(struct lws *wsi, enum lws_callback_reasons reason, void *user, void *bytes, size_t length) {
    struct connection *connection = user;
    switch (reason) {
    case LWS_CALLBACK_ESTABLISHED:
        opened(connection, wsi);
        return connection->service == NONE ? -1 : 0;
    case LWS_CALLBACK_RECEIVE:
        return received(connection, wsi, bytes, length);
    case LWS_CALLBACK_SERVER_WRITEABLE:
        return writable(connection, wsi);
    case LWS_CALLBACK_CLOSED:
        closed(connection);
        return 0;
    default:
        return lws_callback_http_dummy(wsi, reason, user, bytes, length);
    }
}

/* The library's loop watches for SIGINT and does not end by it. */
static void on_signal(void *handle, int number) {
    (void) handle;
    (void) number;
    exit(0);
}

int main(int count, char **arguments) {
    char address[64] = "";
    if (count == 3 && !strcmp(arguments[1], "--listen"))
        lws_strncpy(address, arguments[2], sizeof address);
    char *colon = strrchr(address, ':');
    if (!colon) {
        fputs("usage: --listen ADDRESS:PORT\n", stderr);
        return 2;
    }
    *colon = 0;

    static const struct lws_protocols protocols[] = {
        {"peer", on_event, sizeof(struct connection), READ_BYTES, 0, NULL, 0},
        {NULL, NULL, 0, 0, 0, NULL, 0},
    };
    /* Neither pings nor an end for idle connections, for longer than a benchmark lasts. */
    static const lws_retry_bo_t patience = {.secs_since_valid_ping = 65000, .secs_since_valid_hangup = 65001};
    struct lws_context_creation_info info = {
        .iface = address,
        .port = atoi(colon + 1),
        .protocols = protocols,
        .pt_serv_buf_size = READ_BYTES,
        .max_http_header_pool = HANDSHAKES_MAX,
        .retry_and_idle_policy = &patience,
        .options = LWS_SERVER_OPTION_LIBUV | LWS_SERVER_OPTION_VALIDATE_UTF8 | LWS_SERVER_OPTION_DISABLE_IPV6,
        .gid = -1,
        .uid = -1,
        .signal_cb = on_signal,
    };
    lws_set_log_level(LLL_ERR, NULL);
    struct lws_context *context = lws_create_context(&info);
    if (!context)
        return 1;
    printf("listening on %s:%d\n", address, lws_get_vhost_listen_port(lws_get_vhost_by_name(context, "default")));
    fflush(stdout);
    while (lws_service(context, 0) >= 0)
        ;
    lws_context_destroy(context);
}
