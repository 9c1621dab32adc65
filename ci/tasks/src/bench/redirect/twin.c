// SPDX-License-Identifier: Apache-2.0
//
// What the tc program is measured against: the same job, written by hand in C, and a program that
// does nothing. Only `ci/bench redirect` compiles and loads this; nothing else uses it.
//
// The job: read an Ethernet frame down to TCP's flags (IPv4 with options, IPv6 with up to four
// extension headers), look the destination up in a table of frontends, look the flow's socket up,
// assign or mark, and count the reason. Keys, values, marks and numbers of reasons are those of
// core/datapath. Left out is what no measured packet is: ICMP errors about a connection, and events
// while tracing is on, which are no part of the loaded program in the one that it is compared with.
//
// Nothing is included, so that only clang is needed: the kernel's ABI is declared here, as far as
// it is used. Little-endian machines only.

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define SEC(name) __attribute__((section(name), used))
#define INLINE static inline __attribute__((always_inline))
#define UINT(name, value) int (*name)[value]
#define TYPE(name, type) type *name

/* include/uapi/linux/bpf.h: struct __sk_buff, down to data_end. */
struct packet {
	u32 len, pkt_type, mark, queue_mapping, protocol, vlan_present, vlan_tci, vlan_proto;
	u32 priority, ingress_ifindex, ifindex, tc_index, cb[5], hash, tc_classid, data, data_end;
};

/* struct bpf_sock, down to state. */
struct sock {
	u32 bound_dev_if, family, type, protocol, mark, priority, src_ip4, src_ip6[4], src_port;
	u16 dst_port, padding;
	u32 dst_ip4, dst_ip6[4], state;
};

static void *(*const map_lookup)(void *map, const void *key) = (void *)1;
static long (*const pull_data)(struct packet *packet, u32 length) = (void *)39;
static long (*const release)(struct sock *sock) = (void *)86;
static struct sock *(*const look_up)(struct packet *packet, void *tuple, u32 size, u64 netns,
				     u64 flags) = (void *)99;
static long (*const assign)(struct packet *packet, struct sock *sock, u64 flags) = (void *)124;

enum { ACT_UNSPEC = -1, ACT_OK = 0, ACT_SHOT = 2 };
enum { TIME_WAIT = 6, LISTEN = 10, NEW_SYN_RECV = 12 };
enum { ARMING, ACTIVE, DRAINING };
enum { IPPROTO_TCP = 6, SYN = 0x02, ACK = 0x10 };
enum reason {
	NOT_A_FRONTEND, NOT_IP, TRUNCATED, BAD_HEADER, FRAGMENT, EXTENSION_HEADER, NOT_TCP,
	ESTABLISHED, REQUEST_SOCKET, TIME_WAIT_SOCKET, NEW_CONNECTION, NO_LISTENER, OUT_OF_USE,
	OLDER_CONNECTION, LEFT_TO_SK_LOOKUP = 16,
	ASSIGN_REFUSED = 3 * 32, /* a fault: in a row of its own */
};

struct frontend_key {
	u8 address[16];
	u16 port;
	u8 family, padding;
};

struct frontend {
	u16 listener_port;
	u8 state, padding;
};

struct {
	UINT(type, 1); /* BPF_MAP_TYPE_HASH */
	UINT(max_entries, 65536);
	TYPE(key, struct frontend_key);
	TYPE(value, struct frontend);
} FRONTENDS SEC(".maps");

struct {
	UINT(type, 6); /* BPF_MAP_TYPE_PERCPU_ARRAY */
	UINT(max_entries, 128);
	TYPE(key, u32);
	TYPE(value, u64);
} COUNTERS SEC(".maps");

/* Whether an sk_lookup program stands beside this one; set before it is loaded. */
const volatile u32 SK_LOOKUP = 0;

struct flow {
	u8 src[16], dst[16];
	u16 sport, dport; /* network byte order */
	u8 family, flags;
};

INLINE void count(u32 index)
{
	u64 *counter = map_lookup(&COUNTERS, &index);
	if (counter)
		(*counter)++;
}

INLINE void copy4(u8 *to, const u8 *from)
{
	__builtin_memcpy(to, from, 4);
}

/* Ports and flags. -1, or why it is no flow. */
INLINE int segment(const u8 *at, const u8 *end, struct flow *flow)
{
	if (at + 14 > end)
		return TRUNCATED;
	__builtin_memcpy(&flow->sport, at, 2);
	__builtin_memcpy(&flow->dport, at + 2, 2);
	flow->flags = at[13];
	return -1;
}

INLINE int ipv4(const u8 *at, const u8 *end, struct flow *flow)
{
	if (at + 20 > end)
		return TRUNCATED;
	u32 length = (at[0] & 15) << 2;
	if (at[0] >> 4 != 4 || length < 20)
		return BAD_HEADER;
	if (at[6] & 0x3f || at[7])
		return FRAGMENT;
	if (at[9] != IPPROTO_TCP)
		return NOT_TCP;
	flow->family = 4;
	copy4(flow->src, at + 12);
	copy4(flow->dst, at + 16);
	return segment(at + length, end, flow);
}

INLINE int ipv6(const u8 *at, const u8 *end, struct flow *flow)
{
	if (at + 40 > end)
		return TRUNCATED;
	if (at[0] >> 4 != 6)
		return BAD_HEADER;
	u8 next = at[6];
	flow->family = 6;
	__builtin_memcpy(flow->src, at + 8, 16);
	__builtin_memcpy(flow->dst, at + 24, 16);
	at += 40;
#pragma unroll
	for (int header = 0; header < 4; header++) {
		if (next != 0 && next != 43 && next != 60)
			break;
		if (at + 2 > end)
			return TRUNCATED;
		next = at[0];
		at += (at[1] << 3) + 8;
	}
	if (next == 44)
		return FRAGMENT;
	if (next == 0 || next == 43 || next == 60)
		return EXTENSION_HEADER;
	return next == IPPROTO_TCP ? segment(at, end, flow) : NOT_TCP;
}

INLINE int parse(struct packet *packet, struct flow *flow)
{
	const u8 *at = (const u8 *)(u64)packet->data + 14;
	const u8 *end = (const u8 *)(u64)packet->data_end;
	switch (packet->protocol) {
	case 0x0008:
		return ipv4(at, end, flow);
	case 0xdd86:
		return ipv6(at, end, flow);
	default:
		return NOT_IP;
	}
}

/* The socket of a flow from src to dst, ports in network byte order. */
INLINE struct sock *socket_of(struct packet *packet, u8 family, const u8 *src, const u8 *dst,
			      u16 sport, u16 dport)
{
	u8 tuple[36];
	u32 width = family == 4 ? 4 : 16;
	if (family == 4) {
		copy4(tuple, src);
		copy4(tuple + 4, dst);
		__builtin_memcpy(tuple + 8, &sport, 2);
		__builtin_memcpy(tuple + 10, &dport, 2);
		return look_up(packet, tuple, 12, (u64)-1, 0);
	}
	__builtin_memcpy(tuple, src, 16);
	__builtin_memcpy(tuple + 16, dst, 16);
	__builtin_memcpy(tuple + 32, &sport, 2);
	__builtin_memcpy(tuple + 34, &dport, 2);
	return look_up(packet, tuple, 2 * width + 4, (u64)-1, 0);
}

INLINE int give(struct packet *packet, struct sock *sock, u32 mark, enum reason reason)
{
	count(reason);
	packet->mark = mark;
	long refused = assign(packet, sock, 0);
	release(sock);
	if (refused)
		count(ASSIGN_REFUSED);
	return ACT_OK;
}

INLINE int deliver(struct packet *packet, u32 mark, enum reason reason)
{
	count(reason);
	packet->mark = mark;
	return ACT_OK;
}

INLINE int pass(enum reason reason)
{
	count(reason);
	return ACT_UNSPEC;
}

INLINE int decide(struct packet *packet, struct flow *flow)
{
	struct frontend_key key = { .family = flow->family };
	__builtin_memcpy(key.address, flow->dst, 16);
	key.port = __builtin_bswap16(flow->dport);
	struct frontend *frontend = map_lookup(&FRONTENDS, &key);
	if (!frontend || frontend->state > DRAINING)
		return pass(NOT_A_FRONTEND);
	u32 mark = 0x0200 | (u32)__builtin_bswap16(frontend->listener_port) << 16;

	struct sock *sock = socket_of(packet, flow->family, flow->src, flow->dst, flow->sport,
				      flow->dport);
	if (sock) {
		switch (sock->state) {
		case LISTEN:
			release(sock);
			break;
		case TIME_WAIT:
			if (!SK_LOOKUP)
				return give(packet, sock, mark, TIME_WAIT_SOCKET);
			release(sock);
			return deliver(packet, mark, TIME_WAIT_SOCKET);
		case NEW_SYN_RECV:
			return give(packet, sock, mark, REQUEST_SOCKET);
		default:
			return give(packet, sock, mark, ESTABLISHED);
		}
	}
	if (frontend->state == DRAINING)
		return pass(OUT_OF_USE);
	if (frontend->state == ARMING && (flow->flags & (SYN | ACK)) != SYN)
		return pass(OLDER_CONNECTION);
	if (SK_LOOKUP)
		return deliver(packet, mark, LEFT_TO_SK_LOOKUP);

	u8 nobody[16] = {}, loopback[16] = {};
	loopback[0] = flow->family == 4 ? 127 : 0;
	loopback[flow->family == 4 ? 3 : 15] = 1;
	u32 port = frontend->listener_port;
	sock = socket_of(packet, flow->family, nobody, loopback, 0, __builtin_bswap16(port));
	if (!sock || sock->state != LISTEN || sock->src_port != port) {
		if (sock)
			release(sock);
		count(NO_LISTENER);
		return ACT_SHOT;
	}
	return give(packet, sock, mark, NEW_CONNECTION);
}

SEC("classifier") int twin(struct packet *packet)
{
	struct flow flow = {};
	int why = parse(packet, &flow);
	if (why == TRUNCATED && pull_data(packet, packet->len < 4096 ? packet->len : 4096) == 0)
		why = parse(packet, &flow);
	if (why >= 0)
		return pass(why);
	return decide(packet, &flow);
}

SEC("classifier") int empty(struct packet *packet)
{
	return ACT_UNSPEC;
}

char LICENSE[] SEC("license") = "Apache-2.0";
