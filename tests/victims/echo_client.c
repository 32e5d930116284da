/* echo_client: keeps TCP connections to an echo server and checks every byte that comes back.
 *
 * Each connection sends numbered records, several of them on the way at a time; a beat is a record
 * that came back.  It never connects again: an end or a reset of a connection is a problem.
 */
#define _GNU_SOURCE
#include "echo.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { MOST = 256, BUFFER = 65536 };

static const char *to;
static uint64_t connections = 1, pipeline = 4, interval_us = 1000;

static struct connection {
	int fd; /* -1 after its end */
	struct inbox inbox;
	uint64_t made; /* records begun */
	struct record out;
	size_t sent, to_send;
	int64_t last, largest_gap;
} all[MOST];

static uint64_t open_connections, records;

static const struct victim_option options[] = {
	{ "connect", VICTIM_STR, &to, "ADDR:PORT of the server, numeric (required)" },
	{ "connections", VICTIM_U64, &connections, "how many (default 1)" },
	{ "pipeline", VICTIM_U64, &pipeline, "records on the way on each (default 4)" },
	{ "interval-us", VICTIM_U64, &interval_us, "pause before each round (default 1000)" },
	{ 0 },
};

static void open_connection(struct connection *c, const struct sockaddr_storage *a, socklen_t length)
{
	int one = 1;

	c->fd = socket(a->ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (c->fd < 0 || connect(c->fd, (const struct sockaddr *)a, length))
		victim_die("connect to %s", to);
	if (fcntl(c->fd, F_SETFL, O_NONBLOCK) ||
	    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one))
		victim_die("setting up a connection");
	c->inbox = (struct inbox){ .who = "client", .connection = (uint32_t)(c - all), .known = true };
	c->last = victim_now();
	open_connections++;
}

static void give_up(struct connection *c, const char *why)
{
	victim_lasting("connection %td, %" PRIu64 " records echoed: %s", c - all, c->inbox.next, why);
	close(c->fd);
	c->fd = -1;
	open_connections--;
}

static void send_some(struct connection *c)
{
	ssize_t n;

	while (c->sent < c->to_send || c->made - c->inbox.next < pipeline) {
		if (c->sent == c->to_send) {
			record_make(&c->out, (uint32_t)(c - all), c->made++);
			c->to_send = ECHO_HEADER + c->out.length;
			c->sent = 0;
		}
		n = write(c->fd, (unsigned char *)&c->out + c->sent, c->to_send - c->sent);
		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		if (n < 0) {
			give_up(c, strerror(errno));
			return;
		}
		c->sent += (size_t)n;
	}
}

static void one_more(struct connection *c)
{
	int64_t now = victim_now();

	if (now - c->last > c->largest_gap)
		c->largest_gap = now - c->last;
	c->last = now;
	records++;
	victim_beat();
}

static void receive_some(struct connection *c)
{
	static unsigned char buffer[BUFFER];
	ssize_t n = read(c->fd, buffer, sizeof buffer);
	bool whole;

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		give_up(c, n ? strerror(errno) : "the server closed it");
		return;
	}
	for (long at = 0, used; at < n; at += used) {
		used = inbox_take(&c->inbox, buffer + at, (size_t)(n - at), &whole);
		if (used < 0) {
			give_up(c, "wrong bytes, see above");
			return;
		}
		if (whole)
			one_more(c);
	}
}

static void put(void)
{
	int64_t largest = 0;
	uint64_t bytes = 0;

	for (struct connection *c = all; c < all + connections; c++) {
		bytes += c->inbox.bytes;
		if (c->largest_gap > largest)
			largest = c->largest_gap;
		c->largest_gap = 0;
		c->last = victim_now();
	}
	victim_put_u64("connections", connections);
	victim_put_u64("open_connections", open_connections);
	victim_put_u64("records", records);
	victim_put_u64("bytes", bytes);
	/* max_gap_ms is between any two records, this within one connection. */
	victim_put_ms("max_connection_gap_ms", largest);
}

/* A gap that lasts still, as when the server never came back, has to show as well. */
static void note_running_gaps(void)
{
	for (struct connection *c = all; c < all + connections; c++)
		if (c->fd >= 0 && victim_now() - c->last > c->largest_gap)
			c->largest_gap = victim_now() - c->last;
}

static void turn(void)
{
	struct timespec ts = { 0, 20 * VICTIM_MS };
	struct pollfd fds[MOST];

	for (uint64_t i = 0; i < connections; i++) {
		struct connection *c = &all[i];

		if (c->fd >= 0)
			send_some(c);
		fds[i] = (struct pollfd){ .fd = c->fd, .events = POLLIN };
		if (c->sent < c->to_send)
			fds[i].events |= POLLOUT;
	}
	if (ppoll(fds, connections, &ts, victim_wait_mask()) <= 0)
		return;
	for (uint64_t i = 0; i < connections; i++)
		if (fds[i].revents & ~POLLOUT)
			receive_some(&all[i]);
}

/* Ends between two records, so that the server sees no broken one. */
static void drain(void)
{
	int64_t until = victim_now() + 2 * VICTIM_SECOND;
	bool rest = false;

	pipeline = 0;
	while (!rest && victim_now() < until) {
		turn();
		rest = true;
		for (struct connection *c = all; c < all + connections; c++)
			rest &= c->fd < 0 || c->made == c->inbox.next;
	}
}

int main(int argc, char **argv)
{
	struct sockaddr_storage a;
	socklen_t length;

	victim_begin("echo_client", argc, argv, options);
	if (!to)
		victim_usage("--connect is missing");
	if (!connections || connections > MOST || !pipeline)
		victim_usage("--connections: 1 to %d, --pipeline: at least 1", MOST);
	length = echo_address(to, &a);
	for (struct connection *c = all; c < all + connections; c++)
		open_connection(c, &a, length);
	victim_ready();
	while (victim_wait((int64_t)interval_us * 1000)) {
		turn();
		if (!victim_asked())
			continue;
		note_running_gaps();
		victim_report(put);
	}
	drain();
	return 0;
}
