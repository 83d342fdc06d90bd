"""Numbers that several programs use: helpers, fields of a frame's context, protocols.

From linux/bpf.h, linux/if_ether.h, linux/pkt_cls.h; helpers are documented in bpf-helpers(7).
Numbers in packets are as a little-endian load sees them.
"""

from __future__ import annotations

from typing import Final

MAP_LOOKUP, MAP_UPDATE, KTIME_NS, RANDOM, CLONE_REDIRECT, REDIRECT = 1, 2, 5, 7, 13, 23
VLAN_PUSH, VLAN_POP = 18, 19
STORE_BYTES, CHECKSUM_REPLACE, LOAD_BYTES, ADJUST_ROOM, REDIRECT_PEER = 9, 10, 26, 50, 155
PULL_DATA: Final = 39
FLOW_HASH, FIB_LOOKUP, REDIRECT_NEIGH, JIFFIES = 34, 69, 152, 118
SOCKET_STORAGE, NETNS_COOKIE = 107, 122
STORAGE_CREATE: Final = 1  # BPF_SK_STORAGE_GET_F_CREATE: with zeros, unless it is there
MAC_LAYER: Final = 1  # BPF_ADJ_ROOM_MAC: room after the Ethernet header
REDIRECT_INGRESS: Final = 1  # BPF_F_INGRESS: as if the interface had received the frame
PASS: Final = -1  # TC_ACT_UNSPEC: on to other filters, then to the bridge or out
DROP: Final = 2  # TC_ACT_SHOT
# struct __sk_buff
LENGTH, PACKET_TYPE, MARK, PROTOCOL, VLAN_PRESENT = 0, 4, 8, 16, 20
VLAN_TAG, VLAN_PROTOCOL, PRIORITY, INGRESS_IFINDEX, IFINDEX = 24, 28, 32, 36, 40
TC_INDEX, DATA, DATA_END, SEGMENT_SIZE = 44, 76, 80, 176
IPV4, IPV6, ARP = 0x0008, 0xDD86, 0x0608
DHCP_SERVER, DHCPV6_SERVER, DHCP_CLIENT, DHCPV6_CLIENT = 0x4300, 0x2302, 0x4400, 0x2202
FRAGMENT: Final = 0xFF3F  # more fragments, or an offset
TCP, UDP, ICMP, IGMP, ICMPV6 = 6, 17, 1, 2, 58
ETHERNET_SIZE: Final = 14
JUDGED: Final = 0x6F766A  # mark, within the sandbox: policies have judged the frame
