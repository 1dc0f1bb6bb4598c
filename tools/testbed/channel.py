"""The host's end of the agent's protocol (tools/testbed/guest/agent)."""

import time


class ChannelError(Exception):
    """The guest did not answer: it hangs, it panicked, or QEMU has ended."""


class Channel:
    def __init__(self, connection):
        self.socket = connection
        self.buffer = b""

    def _fill(self, deadline):
        left = deadline - time.monotonic()
        if left <= 0:
            raise ChannelError("the guest did not answer in time")
        self.socket.settimeout(left)
        try:
            data = self.socket.recv(1 << 16)
        except TimeoutError:
            raise ChannelError("the guest did not answer in time") from None
        except OSError as error:
            raise ChannelError(f"the guest's channel broke: {error}") from None
        if not data:
            raise ChannelError("the guest is gone: QEMU has closed the channel")
        self.buffer += data

    def line(self, deadline):
        while b"\n" not in self.buffer:
            self._fill(deadline)
        line, _, self.buffer = self.buffer.partition(b"\n")
        return line.decode()

    def exactly(self, count, deadline):
        parts, have = [self.buffer], len(self.buffer)
        self.buffer = b""
        while have < count:
            self._fill(deadline)
            parts.append(self.buffer)
            have += len(self.buffer)
            self.buffer = b""
        data = b"".join(parts)
        self.buffer = data[count:]
        return data[:count]

    def wait_ready(self, timeout):
        deadline = time.monotonic() + timeout
        while self.line(deadline) != "READY":
            pass

    def request(self, header, data, timeout):
        """Send a request; returns (exit status, bytes)."""
        deadline = time.monotonic() + timeout
        self.socket.settimeout(timeout)
        try:
            self.socket.sendall(header.encode() + b"\n" + data)
        except OSError as error:
            raise ChannelError(f"the guest does not take requests: {error}") from None
        mark, status, count = self.line(deadline).split()
        if mark != "=":
            raise ChannelError(f"the guest's agent is out of step: it sent {mark!r}")
        return int(status), self.exactly(int(count), deadline)

    def close(self):
        self.socket.close()
