/* echo_server: sends back what comes, and checks on the way that it is what a client must send.
 *
 * A client may close its connection between two records; anything else is a problem.
 */
#define _GNU_SOURCE
#include "echo.h"

#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

enum { BUFFER = 16384, EVENTS = 64 };

static const char *at_address;
static uint64_t beat_ms = 5;

struct connection {
	int fd;
	struct inbox inbox;
	size_t begin, end; /* of the bytes that have to go back */
	unsigned char buffer[BUFFER];
};

static int epoll, listener;
static uint64_t accepted, ended, records, bytes;
static uint16_t port;

static const struct victim_option options[] = {
	{ "listen", VICTIM_STR, &at_address, "ADDR:PORT, numeric; port 0: any (required)" },
	{ "beat-ms", VICTIM_U64, &beat_ms, "time between beats (default 5)" },
	{ 0 },
};

static void make_listener(void)
{
	struct sockaddr_storage a;
	struct epoll_event e = { .events = EPOLLIN };
	socklen_t length = echo_address(at_address, &a);
	int one = 1;

	epoll = epoll_create1(EPOLL_CLOEXEC);
	listener = socket(a.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (epoll < 0 || listener < 0)
		victim_die("socket");
	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	if (bind(listener, (struct sockaddr *)&a, length) || listen(listener, 128) ||
	    getsockname(listener, (struct sockaddr *)&a, &length))
		victim_die("listen on %s", at_address);
	/* Of IPv4 and IPv6, the port is at the same place. */
	port = ntohs(((struct sockaddr_in *)&a)->sin_port);
	if (epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &e))
		victim_die("epoll_ctl");
}

static void watch(struct connection *c, int operation)
{
	struct epoll_event e = { .data.ptr = c };

	/* Nothing more is read before all went back: one buffer is enough. */
	e.events = c->begin < c->end ? EPOLLOUT : EPOLLIN;
	if (epoll_ctl(epoll, operation, c->fd, &e))
		victim_die("epoll_ctl");
}

static void accept_one(void)
{
	int one = 1, fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	struct connection *c;

	if (fd < 0)
		return;
	c = calloc(1, sizeof *c);
	if (!c)
		victim_die("calloc");
	c->fd = fd;
	c->inbox.who = "server";
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	accepted++;
	watch(c, EPOLL_CTL_ADD);
}

static void end_connection(struct connection *c, const char *why)
{
	if (why)
		victim_lasting("connection %u, %" PRIu64 " records seen: %s", c->inbox.connection,
			       c->inbox.next, why);
	close(c->fd);
	free(c);
	ended++;
}

static bool check_bytes(struct connection *c)
{
	bool whole;

	for (size_t i = c->begin, used; i < c->end; i += used) {
		long n = inbox_take(&c->inbox, c->buffer + i, c->end - i, &whole);

		if (n < 0)
			return false;
		used = (size_t)n;
		records += whole;
	}
	return true;
}

static void send_back(struct connection *c)
{
	ssize_t n = write(c->fd, c->buffer + c->begin, c->end - c->begin);

	if (n < 0 && errno != EAGAIN && errno != EINTR) {
		end_connection(c, strerror(errno));
		return;
	}
	if (n > 0) {
		c->begin += (size_t)n;
		bytes += (uint64_t)n;
	}
	watch(c, EPOLL_CTL_MOD);
}

static void receive(struct connection *c)
{
	ssize_t n = read(c->fd, c->buffer, sizeof c->buffer);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n < 0) {
		end_connection(c, strerror(errno));
		return;
	}
	if (!n) {
		end_connection(c, c->inbox.have ? "closed within a record" : NULL);
		return;
	}
	c->begin = 0;
	c->end = (size_t)n;
	if (!check_bytes(c))
		end_connection(c, "wrong bytes, see above");
	else
		send_back(c);
}

static int until_next_beat(int64_t last)
{
	int64_t left = last + (int64_t)beat_ms * VICTIM_MS - victim_now();

	return left <= 0 || left > (int64_t)beat_ms * VICTIM_MS ? 0 : (int)(left / VICTIM_MS) + 1;
}

static int64_t turn(int64_t last_beat)
{
	struct epoll_event e[EVENTS];
	int n = epoll_pwait(epoll, e, EVENTS, until_next_beat(last_beat), victim_wait_mask());

	for (int i = 0; i < n; i++) {
		struct connection *c = e[i].data.ptr;

		if (!c)
			accept_one();
		else if (c->begin < c->end)
			send_back(c);
		else
			receive(c);
	}
	if (until_next_beat(last_beat))
		return last_beat;
	victim_beat();
	return victim_now();
}

static void put(void)
{
	victim_put_u64("port", port);
	victim_put_u64("accepted", accepted);
	victim_put_u64("open_connections", accepted - ended);
	victim_put_u64("records", records);
	victim_put_u64("bytes", bytes);
}

int main(int argc, char **argv)
{
	int64_t last_beat;

	victim_begin("echo_server", argc, argv, options);
	if (!at_address)
		victim_usage("--listen is missing");
	make_listener();
	victim_ready();
	for (last_beat = victim_now(); !victim_stopping();) {
		last_beat = turn(last_beat);
		if (victim_asked())
			victim_report(put);
	}
	return 0;
}
