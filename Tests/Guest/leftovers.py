"""What a pass left in QEMU."""

from place import Failure
from qmp import Refused

PREFIX = "strobe"


def named_nodes(monitor):
    """The nodes that have names of somebody's choice."""
    nodes = monitor.call("query-named-block-nodes", flat=True)
    return {node["node-name"]: node for node in nodes if not node["node-name"].startswith("#")}


def bitmaps(monitor):
    """The bitmaps by node: those that jobs use have no name."""
    return {name: [bitmap.get("name") for bitmap in node.get("dirty-bitmaps", [])]
            for name, node in named_nodes(monitor).items() if node.get("dirty-bitmaps")}


def own_bitmaps(monitor):
    """Strobe's own, as (node, bitmap's name) pairs."""
    return [(node, name) for node, names in bitmaps(monitor).items() for name in names
            if name and name.startswith(PREFIX)]


class Baseline:
    """What there was before anything was taken; whatever is there beyond it is left over."""

    def __init__(self, monitor):
        self.nodes = set(named_nodes(monitor))
        self.exports = {export["id"] for export in monitor.call("query-block-exports")}

    def found(self, monitor, generations=1):
        """What is left, one line each. `generations`: how many bitmaps of Strobe's a disk may have."""
        found = [f"export {export['id']}" for export in monitor.call("query-block-exports")
                 if export["id"] not in self.exports]
        found += [f"job {job['id']} ({job['status']})" for job in monitor.call("query-jobs")]
        found += [f"node {name}" for name in named_nodes(monitor) if name not in self.nodes]
        for node, names in bitmaps(monitor).items():
            own = [name for name in names if name is None or name.startswith(PREFIX)]
            if len(own) > generations:
                found.append(f"{len(own)} bitmaps on {node}: {own}")
        try:
            # Refused where none runs.
            monitor.call("nbd-server-stop")
            found.append("the NBD server")
        except Refused:
            pass
        return found

    def expect(self, monitor, generations=1):
        found = self.found(monitor, generations)
        if found:
            raise Failure(f"left in QEMU: {'; '.join(found)}")
