// The peer on uWebSockets, by its C++ interface on epoll, as its own examples are built: the C interface would add a
// call through a pointer to each message.

#include "App.h"

#include <arpa/inet.h>
#include <climits>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <sys/socket.h>

// Ours has as many; uSockets asks for 512.
static const int LISTEN_BACKLOG = 4096;
static const unsigned MESSAGE_BYTES_MAX = 64u << 20;

struct Nothing {};

template <typename Message, typename Open>
static uWS::App::WebSocketBehavior<Nothing> behavior(Message message, Open open) {
    uWS::App::WebSocketBehavior<Nothing> behavior;
    behavior.compression = uWS::DISABLED;
    behavior.maxPayloadLength = MESSAGE_BYTES_MAX;
    // No timer for idle connections, and no pings, which go with it.
    behavior.idleTimeout = 0;
    behavior.sendPingsAutomatically = false;
    // Nothing is dropped for a slow reader.
    behavior.maxBackpressure = UINT_MAX;
    behavior.open = open;
    behavior.message = message;
    return behavior;
}

static int listening(us_listen_socket_t *socket) {
    if (!socket) {
        fputs("cannot listen\n", stderr);
        return 1;
    }
    int descriptor = (int) (intptr_t) us_socket_get_native_handle(0, (us_socket_t *) socket);
    if (listen(descriptor, LISTEN_BACKLOG)) {
        perror("listen");
        return 1;
    }
    printf("listening on 127.0.0.1:%d\n", us_socket_local_port(0, (us_socket_t *) socket));
    fflush(stdout);
    return 0;
}

int main(int count, char **arguments) {
    const char *address = count == 3 && !strcmp(arguments[1], "--listen") ? arguments[2] : "";
    const char *colon = strrchr(address, ':');
    if (!colon) {
        fputs("usage: --listen ADDRESS:PORT\n", stderr);
        return 2;
    }
    uWS::App app;
    auto echo = [](auto *socket, std::string_view message, uWS::OpCode code) { socket->send(message, code); };
    auto publish = [&app](auto *, std::string_view message, uWS::OpCode code) { app.publish("all", message, code); };
    auto join = [](auto *socket) { socket->subscribe("all"); };
    app.ws<Nothing>("/echo", behavior(echo, [](auto *) {}));
    app.ws<Nothing>("/ws", behavior(publish, join));
    app.ws<Nothing>("/ws/*", behavior(publish, join));
    int status = 0;
    app.listen(std::string(address, colon), atoi(colon + 1), [&status](auto *socket) { status = listening(socket); });
    if (status) {
        return status;
    }
    app.run();
}
