"""Talks to QEMU's monitor (QMP) and to the guest's agent."""

import json
import os
import socket
import sys
import time

sys.path.insert(1, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "Torture"))
from rig import Failure  # noqa: E402  # What all rigs fail with.


class Refused(Failure):
    """The other side answered with an error.

    Attributes:
        description: its own words.
    """

    def __init__(self, command, error):
        super().__init__(f"{command}: {error.get('desc', error)}")
        self.description = error.get("desc", "")


class Lines:
    """Lines of JSON over a socket."""

    def __init__(self, path, patience):
        self.path = path
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(patience)
        end = time.monotonic() + patience
        while True:
            try:
                self.socket.connect(path)
                break
            except (FileNotFoundError, ConnectionRefusedError) as error:
                if time.monotonic() > end:
                    self.socket.close()
                    raise Failure(f"{path}: {error}") from None
                time.sleep(0.005)
        self.rest = b""

    def send(self, message):
        try:
            self.socket.sendall(message)
        except OSError as error:
            raise Failure(f"{self.path}: {error}") from None

    def receive(self):
        """The next line, without its end."""
        while b"\n" not in self.rest:
            try:
                more = self.socket.recv(65536)
            except OSError as error:
                raise Failure(f"{self.path}: {error}") from None
            if not more:
                raise Failure(f"{self.path}: the other side has gone")
            self.rest += more
        line, self.rest = self.rest.split(b"\n", 1)
        return line

    def close(self):
        self.socket.close()


def request(command, values):
    message = {"execute": command}
    if values:
        # QMP's names have dashes, Python's underscores.
        message["arguments"] = {name.replace("_", "-"): value for name, value in values.items()}
    return json.dumps(message).encode() + b"\n"


class Monitor:
    """A connection to a monitor. QEMU serves one at a time on each of its sockets."""

    def __init__(self, path, patience=30):
        self.lines = Lines(path, patience)
        self.events = []
        self.receive()
        self.call("qmp_capabilities")

    def receive(self):
        return json.loads(self.lines.receive())

    def call(self, command, **values):
        """Runs a command and returns its answer; raises Refused when that is an error."""
        self.lines.send(request(command, values))
        while True:
            answer = self.receive()
            if "event" in answer:
                self.events.append(answer)
            elif "error" in answer:
                raise Refused(command, answer["error"])
            else:
                return answer["return"]

    def transaction(self, *actions):
        """Runs (type, data) pairs together, or none of them."""
        return self.call("transaction", actions=[{"type": kind, "data": data} for kind, data in actions])

    def wait(self, event, **values):
        """Waits for an event with these data, also for one that has come already; forgets those before."""
        while True:
            while self.events:
                found = self.events.pop(0)
                data = found.get("data", {})
                if found["event"] == event and all(data.get(key) == value for key, value in values.items()):
                    return found
            answer = self.receive()
            if "event" in answer:
                self.events.append(answer)

    def close(self):
        self.lines.close()


class Agent:
    """A connection to the guest's agent. It serves one at a time."""

    def __init__(self, path, patience=15):
        self.lines = Lines(path, patience)
        self.synchronize()

    def synchronize(self):
        """guest-sync-delimited: whatever an earlier client left unread is skipped."""
        number = time.monotonic_ns() & 0xFFFFFFFF
        self.lines.send(b"\xff" + request("guest-sync-delimited", {"id": number}))
        while True:
            _, delimiter, line = self.lines.receive().rpartition(b"\xff")
            if delimiter and json.loads(line).get("return") == number:
                return

    def call(self, command, **values):
        self.lines.send(request(command, values))
        answer = json.loads(self.lines.receive())
        if "error" in answer:
            raise Refused(command, answer["error"])
        return answer["return"]

    def close(self):
        self.lines.close()
