// Inet6: IPv6: neighbour discovery, duplicate address detection, router solicitation, MLD, ICMPv6, fragments, forwarding.

public enum Inet6Module {}
