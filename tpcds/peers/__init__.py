"""The engines that a user would pick instead, each in a process of its own.

`PEERS` names them; `EngineProcess` runs one. `python -m tpcds.run --compare` and `python -m bench
tpcds` measure with them.
"""

from __future__ import annotations

from tpcds.peers.process import EngineProcess, Outcome
from tpcds.peers.registry import PEERS, PeerInfo, parse_peer_list, start_peer

__all__ = ["PEERS", "EngineProcess", "Outcome", "PeerInfo", "parse_peer_list", "start_peer"]
