"""A Ray cluster on loopback, for as long as standard input is open: prints its address, and obeys its lines.

python ray_cluster.py CORES...     one machine for each number, all of them this one
"""

from __future__ import annotations

import os
import sys

import click

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # loopback alone; Ray looks when it is imported

from ray.cluster_utils import Cluster


def main() -> None:
    """Start the machines, and stop them when the reader has gone; the line "lose" stops one."""
    first, *others = (int(cores) for cores in sys.argv[1:])
    common = {"include_dashboard": False, "object_store_memory": 100 << 20}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": first, **common})
    nodes = [cluster.add_node(num_cpus=cores, **common) for cores in others]
    click.echo(cluster.address)
    for line in sys.stdin:
        if line.strip() == "lose":
            cluster.remove_node(nodes.pop(), allow_graceful=False)
        click.echo("done")
    cluster.shutdown()


if __name__ == "__main__":
    main()
