"""Drafts against one token a step, at several shares of the experts in memory.

    python benchmarks/draft.py STORE [--text FILE] [--draft text|mtp|SMALL] [--accepted 0.85 0.6] [-o FILE]

Texts are followed token by token, as an answer would be written that says just that: a "copy" of what the
prompt says, an "edit" of it, where one token in 20 is another, a "story", which repeats nothing of its
prompt on purpose, and the model's "own" answer, drawn at a temperature of 0.7. Both ways take turns in this
process, text by text; with all in memory they share one model, else each has its own. The median of the
ratios of their times counts. Without --text the text is made up, as in make_model.py.

--accepted is for random weights: a layer or a small store computes its guesses and is told what to say,
right with these probabilities (see draft_parts/told.py), while stories are followed.
One JSON line at the end has everything.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from draft_parts.following import Followed, cache_bytes_of, follow, load
from draft_parts.texts import KINDS, text_of
from draft_parts.told import Prompter, told
from make_model import token_chain

import edgemoe
from edgemoe.api.loading import find_draft
from edgemoe.engine.drafting import Drafting
from edgemoe.engine.drafting.drafting import step_shape
from edgemoe.engine.loading import Engine, LoadOptions
from edgemoe.store import Store, open_store

SHARES = (1.0, 0.5, 0.25)


@dataclass(frozen=True)
class Row:
    """One kind of text with one share of the experts' bytes in memory."""

    share: float
    text: str
    tokens_per_s: float  # with drafts
    speedup: float  # over one token a step; median of the turns
    lowest: float  # of the turns' ratios
    highest: float
    num_drafted: int
    num_accepted: int
    bytes_per_token: tuple[float, float]  # read, without drafts and with them
    is_same: bool  # the likeliest token after every token, with drafts and without

    def __str__(self) -> str:
        without, with_drafts = (number / 1024 for number in self.bytes_per_token)
        turns = f"({self.lowest:.2f} to {self.highest:.2f})"
        accepted = f"{self.num_accepted} of {self.num_drafted}"
        return (
            f"{self.share:5.0%}  {self.text:9s} {self.tokens_per_s:8.1f}  {self.speedup:7.2f} {turns:15s}"
            f" {accepted:>12s}  {without:9.0f} {with_drafts:9.0f}{'' if self.is_same else '  OTHER TOKENS'}"
        )


@dataclass
class Case:
    """A kind of text, what drafts it, and what each turn took, without drafts and with them."""

    name: str
    kind: str
    drafting: Drafting
    prompter: Prompter | None = None
    turns: list[tuple[Followed, Followed]] = field(default_factory=list)

    def row(self, share: float) -> Row:
        """All turns."""
        ratios = [without.seconds / drafted.seconds for without, drafted in self.turns]
        num_tokens = sum(len(drafted.choices) for _, drafted in self.turns)
        return Row(
            share,
            self.name,
            1 / statistics.median(drafted.seconds / len(drafted.choices) for _, drafted in self.turns),
            statistics.median(ratios),
            min(ratios),
            max(ratios),
            sum(drafted.num_drafted for _, drafted in self.turns),
            sum(drafted.num_accepted for _, drafted in self.turns),
            (
                sum(without.bytes_read for without, _ in self.turns) / num_tokens,
                sum(drafted.bytes_read for _, drafted in self.turns) / num_tokens,
            ),
            all(without.choices == drafted.choices for without, drafted in self.turns),
        )


def cases_of(engine: Engine, store: Store, args: argparse.Namespace) -> list[Case]:
    """What is to be followed with the drafts of an engine."""
    if not args.accepted:
        return [Case(kind, kind, engine.drafting) for kind in args.kind]
    model = engine.drafting.model
    if model is None:
        sys.exit("draft.py: --accepted is for --draft mtp and --draft STORE: the text says what it says")
    shape, found = step_shape(engine.spec, store.manifest), []
    for chance in args.accepted:
        prompter = Prompter(engine.spec.vocab_size, chance)
        drafting = told(model, prompter, shape, args.drafted)
        found.append(Case(f"{chance:.0%} right", "story", drafting, prompter))
    return found


def take_turn(
    single: Engine, drafted: Engine, case: Case, ids: Sequence[int], length: int, turn: int
) -> tuple[Followed, Followed]:
    """One text, followed without drafts and with them; which comes first changes from turn to turn."""
    prompt, answer = text_of(ids, case.kind, length, turn, single.session)
    if case.prompter is not None:
        case.prompter.follow([*prompt, *answer], seed=turn)
    ways = ((single, None), (drafted, case.drafting))
    found = [follow(*way, prompt, answer) for way in (ways if turn % 2 else ways[::-1])]
    without, with_drafts = found if turn % 2 else found[::-1]
    return without, with_drafts


def rows(store: Store, ids: Sequence[int], share: float, args: argparse.Namespace) -> Iterator[Row]:
    """All kinds of text with one share in memory."""
    draft, draft_store = find_draft(args.draft)
    plain = LoadOptions(context=2 * args.length + 32, cache_bytes=cache_bytes_of(store, share))
    drafts = replace(plain, draft=draft, draft_store=draft_store, num_drafted=args.drafted)
    with ExitStack() as stack:
        drafted = stack.enter_context(closing(load(store, share, drafts)))
        single = drafted if share == 1 else stack.enter_context(closing(load(store, share, plain)))
        cases = cases_of(drafted, store, args)
        for turn in range(args.turns + 1):  # the first for nothing: the caches settle
            print(f"{share:.0%} in memory, turn {turn} of {args.turns}", file=sys.stderr)
            for case in cases:
                pair = take_turn(single, drafted, case, ids, args.length, turn)
                if turn:
                    case.turns.append(pair)
    for case in cases:
        yield case.row(share)


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("store", type=Path)
    parser.add_argument("--text", type=Path, help="prompts and answers are pieces of it")
    parser.add_argument("--kind", choices=KINDS, nargs="+", default=KINDS[:3])
    parser.add_argument("--draft", default="text", help="as of edgemoe run")
    parser.add_argument("--drafted", type=int, help="tokens each time, whatever it costs; default: as pays")
    parser.add_argument("--accepted", type=float, nargs="+", metavar="P", help="how often guesses are right")
    parser.add_argument("--share", type=float, nargs="+", default=SHARES)
    parser.add_argument("--length", type=int, default=128, help="tokens of a prompt, and of an answer")
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("-o", "--output", type=Path, help="write the JSON line here as well")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print a row as soon as there is one."""
    args = parsed(arguments)
    store = open_store(args.store)
    if args.text is None:
        ids = token_chain(20_000, seed=7)
    else:
        with edgemoe.load(args.store) as model:
            ids = model.tokenizer.encode(args.text.read_text(encoding="utf-8")[:200_000])
    found: list[Row] = []
    print("share  text      tokens/s  speedup (turns)          accepted  KiB read a token, with drafts")
    for share in args.share:
        for row in rows(store, ids, share, args):
            print(row, flush=True)
            found.append(row)
    told_of = {"store": str(args.store), "draft": args.draft}
    line = json.dumps({**told_of, "rows": [asdict(row) for row in found]})
    print(line)
    if args.output is not None:
        args.output.write_text(line + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
