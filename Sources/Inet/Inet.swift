// Inet: IPv4 and its neighbours: ARP, ICMP, IGMP, fragments, forwarding.

public enum InetModule {}
