"""Runs commands in the test guest, through the port that serve-commands listens to."""

import re
import secrets

from place import Failure
from qmp import Lines


class Commands:
    """A connection to the guest's port for commands."""

    def __init__(self, path, patience=60):
        self.lines = Lines(path, patience)
        # What an earlier connection left unread is skipped.
        token = secrets.token_hex(8)
        self.lines.send(f"echo {token}\n".encode())
        while self.lines.receive().decode(errors="replace") != token:
            pass
        self.rest_of_answer()

    def rest_of_answer(self):
        """The lines up to the status, and the status."""
        found = []
        while True:
            line = self.lines.receive().decode(errors="replace")
            status = re.fullmatch(r"= (\d+)", line)
            if status:
                # The blank line that serve-commands puts before the status.
                return "\n".join(found).strip("\n"), int(status[1])
            found.append(line)

    def run(self, line, check=True):
        """Runs a line of shell and returns what it printed, errors included."""
        self.lines.send(line.encode() + b"\n")
        output, status = self.rest_of_answer()
        if check and status != 0:
            raise Failure(f"in the guest: {line}: status {status}: {output[-400:]}")
        return output

    def close(self):
        self.lines.close()
