/* Records checked as they arrive, and addresses: what echo_client and echo_server share. */
#define _GNU_SOURCE
#include "echo.h"

#include <errno.h>
#include <inttypes.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>

socklen_t echo_address(const char *text, struct sockaddr_storage *to)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM,
				  .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV };
	struct addrinfo *found;
	const char *colon = strrchr(text, ':');
	char host[128] = "";
	socklen_t length;

	if (!colon)
		victim_usage("not ADDR:PORT: %s", text);
	if (*text == '[')
		snprintf(host, sizeof host, "%.*s", (int)(colon - text) - 2, text + 1);
	else
		snprintf(host, sizeof host, "%.*s", (int)(colon - text), text);
	if (getaddrinfo(host, colon + 1, &hints, &found))
		victim_usage("not ADDR:PORT: %s", text);
	length = found->ai_addrlen;
	memcpy(to, found->ai_addr, length);
	freeaddrinfo(found);
	return length;
}

static bool header_right(struct inbox *in)
{
	const struct record *r = &in->record;

	if (!in->known) {
		in->connection = r->connection;
		in->known = true;
	}
	if (r->magic == ECHO_MAGIC && r->connection == in->connection && r->number == in->next &&
	    r->length == record_length(r->connection, r->number))
		return true;
	victim_lasting("%s: connection %u: header: wanted record %" PRIu64 ", found record %" PRIu64
		       " of connection %u, magic %08x, length %u",
		       in->who, in->connection, in->next, r->number, r->connection, r->magic, r->length);
	return false;
}

static bool payload_right(struct inbox *in)
{
	const struct record *r = &in->record;
	uint64_t key = record_key(in->connection, in->next);
	long at = victim_compare(r->payload, r->length, key);

	if (at < 0)
		return true;
	victim_lasting("%s: connection %u, record %" PRIu64 ": payload byte %ld: wanted %02x, found %02x",
		       in->who, in->connection, in->next, at,
		       (unsigned)(victim_mix(key, (uint64_t)at & ~7ULL) >> at % 8 * 8) & 0xff,
		       r->payload[at]);
	return false;
}

long inbox_take(struct inbox *in, const unsigned char *bytes, size_t length, bool *whole)
{
	bool in_header = in->have < ECHO_HEADER;
	size_t end = in_header ? ECHO_HEADER : ECHO_HEADER + in->record.length;
	size_t take = end - in->have < length ? end - in->have : length;

	*whole = false;
	memcpy((unsigned char *)&in->record + in->have, bytes, take);
	in->have += take;
	in->bytes += take;
	if (in->have < end)
		return (long)take;
	if (in_header && !header_right(in))
		return -1;
	if (in_header && in->record.length)
		return (long)take;
	in->have = 0;
	*whole = true;
	if (!payload_right(in))
		return -1;
	in->next++;
	return (long)take;
}
