"""QEMU's machine protocol: one command at a time over a Unix socket, events kept aside."""

import json
import time


class QMPError(Exception):
    pass


class QMP:
    def __init__(self, connection, timeout=20):
        self.events = []
        self.buffer = b""
        self.socket = connection
        self._message(time.monotonic() + timeout)  # the greeting
        self.command("qmp_capabilities")

    def _message(self, deadline):
        while b"\n" not in self.buffer:
            left = deadline - time.monotonic()
            if left <= 0:
                raise QMPError("QEMU's monitor did not answer in time")
            self.socket.settimeout(left)
            try:
                data = self.socket.recv(65536)
            except TimeoutError:
                continue
            if not data:
                raise QMPError("QEMU closed its monitor: the process has ended")
            self.buffer += data
        line, _, self.buffer = self.buffer.partition(b"\n")
        return json.loads(line)

    def command(self, name, /, timeout=20, **arguments):
        """Run a QMP command and return its answer. Raises QMPError with QEMU's own words."""
        request = {"execute": name, "arguments": {key.replace("_", "-") if name != "set_link" else key: value
                                                  for key, value in arguments.items()}}
        self.socket.sendall(json.dumps(request).encode() + b"\n")
        deadline = time.monotonic() + timeout
        while True:
            message = self._message(deadline)
            if "event" in message:
                self.events.append(message)
            elif "error" in message:
                raise QMPError(f"{name}: {message['error']['desc']}")
            elif "return" in message:
                return message["return"]

    def wait_event(self, name, timeout=20, **data):
        """Wait for an event whose data has the given fields; those seen before count too."""
        deadline = time.monotonic() + timeout
        while True:
            for event in self.events:
                if event["event"] == name and all(event["data"].get(k) == v for k, v in data.items()):
                    self.events.remove(event)
                    return event
            message = self._message(deadline)
            if "event" in message:
                self.events.append(message)

    def close(self):
        self.socket.close()
