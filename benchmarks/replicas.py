"""What N replicas of the server would give: a simulation from the costs of one.

    python benchmarks/replicas.py [--read-ms 4] [--token-ms 21] [--prompt 500] [--answer 200]

Requests arrive at random (Poisson). Each has a conversation, and its prompt is the conversation so far: a
replica that has answered the turn before reads only the last turn of it, as the server does. A replica
answers one request at a time, as one whose experts do not all fit into memory does; so a request takes
the tokens that are read and written for it, at the costs given. Requests go to the replica with the least
work, or to the one that knows the conversation.

The costs are to be measured: `edgemoe bench STORE --memory M` prints them. Prints, for 1 to 8 replicas,
the rate at which half of the requests wait for more than a minute, and how long they wait at three
quarters of it.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import numpy as np

NUM_REQUESTS = 2000  # for each replica
MAX_TURNS = 8


@dataclass(frozen=True)
class Costs:
    """Of one replica, in seconds per token, and of a request, in tokens."""

    read_s: float
    token_s: float
    prompt: int
    answer: int


def service_s(costs: Costs, turn: int, is_known: bool) -> float:
    """Of a conversation's n-th turn (from 0), whose history is read again unless the replica knows it."""
    turns_read = 1 if is_known else 1 + turn
    history = 0 if is_known else turn * costs.answer
    return costs.read_s * (turns_read * costs.prompt + history) + costs.token_s * costs.answer


def waits(costs: Costs, num_replicas: int, rate: float, is_sticky: bool, seed: int = 0) -> np.ndarray:
    """Seconds that each request waits, at so many requests a second."""
    rng = np.random.default_rng(seed)
    arrivals = np.cumsum(rng.exponential(1 / rate, num_replicas * NUM_REQUESTS))
    # As many conversations as are open at a time; each request goes on with one, or begins anew.
    homes: list[tuple[int, int] | None] = [None] * (4 * num_replicas)
    free_s = [0.0] * num_replicas
    found = []
    for now in arrivals.tolist():
        slot = int(rng.integers(len(homes)))
        home = homes[slot]
        turn = 0 if home is None else home[1]
        least = int(np.argmin(free_s))
        chosen = home[0] if is_sticky and home is not None else least
        begins = max(now, free_s[chosen])
        free_s[chosen] = begins + service_s(costs, turn, home is not None and home[0] == chosen)
        homes[slot] = None if turn + 1 == MAX_TURNS else (chosen, turn + 1)
        found.append(begins - now)
    return np.array(found)


def capacity(costs: Costs, num_replicas: int, is_sticky: bool, patience_s: float = 60.0) -> float:
    """Requests a second at which the median wait reaches the patience, by bisection."""
    low, high = 0.0, num_replicas / service_s(costs, 0, True)
    for _ in range(12):
        middle = (low + high) / 2
        is_bearable = float(np.median(waits(costs, num_replicas, middle, is_sticky))) <= patience_s
        low, high = (middle, high) if is_bearable else (low, middle)
    return low


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--read-ms", type=float, default=4.0, help="to read a token of a prompt")
    parser.add_argument("--token-ms", type=float, default=21.0, help="to write a token")
    parser.add_argument("--prompt", type=int, default=500, help="tokens of a turn")
    parser.add_argument("--answer", type=int, default=200, help="tokens of an answer")
    args = parser.parse_args()
    costs = Costs(args.read_ms / 1000, args.token_ms / 1000, args.prompt, args.answer)
    print(
        "| replicas | to whom | requests a minute | of one replica | at 3/4 of it: median wait, s | 95 %, s |"
    )
    print("|---:|---|---:|---:|---:|---:|")
    one = capacity(costs, 1, True)
    for num_replicas in (1, 2, 4, 8):
        for is_sticky, name in ((True, "who knows it"), (False, "least work")):
            most = capacity(costs, num_replicas, is_sticky)
            waited = waits(costs, num_replicas, 0.75 * most, is_sticky)
            print(
                f"| {num_replicas} | {name} | {60 * most:.1f} | {most / one:.2f}x"
                f" | {np.median(waited):.1f} | {np.quantile(waited, 0.95):.1f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
