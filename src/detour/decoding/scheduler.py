"""Which requests run together, and how far each one is.

Knows requests and token ids. Does not know models, tensors or text.
"""

from __future__ import annotations

from collections.abc import Sequence

from detour.decoding.request import Finish, Generation, Request, Status


def plan(requests: Sequence[Request], batch_size: int) -> list[list[int]]:
    """Indices of `requests` in batches of at most `batch_size`, longest prompts first.

    Neighbours in length share a batch, so that little is padded. Where one chain fills whole
    batches it gets its own (one chain for all rows costs less than a mix); the rest is mixed.
    """
    by_length = sorted(range(len(requests)), key=lambda n: -len(requests[n].prompt_ids))
    by_chain: dict[int, list[int]] = {}
    for index in by_length:
        by_chain.setdefault(id(requests[index].chain), []).append(index)
    batches: list[list[int]] = []
    rest: set[int] = set()
    for group in by_chain.values():
        whole = len(group) - len(group) % batch_size
        batches += [group[at : at + batch_size] for at in range(0, whole, batch_size)]
        rest.update(group[whole:])
    mixed = [index for index in by_length if index in rest]
    return batches + [mixed[at : at + batch_size] for at in range(0, len(mixed), batch_size)]


class Row:
    """A request under way: what it has generated and whether it has ended."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.ids: list[int] = []
        self.status = Status.WAITING
        self.finish: Finish | None = None
        self._eos = frozenset(request.sampling.eos_ids)
        self._stop_ids = request.sampling.stop_ids
        self._limit = request.sampling.max_new_tokens

    def start(self) -> None:
        """The row has joined a running batch."""
        self.status = Status.RUNNING

    def push(self, token: int) -> None:
        """Take the next token; may end the row."""
        if token in self._eos:
            self._end(Finish.STOP)
            return
        self.ids.append(token)
        for sequence in self._stop_ids:
            if tuple(self.ids[-len(sequence) :]) == sequence:
                del self.ids[-len(sequence) :]
                self._end(Finish.STOP)
                return
        if self.request.stops is not None and self.request.stops(self.ids):
            self._end(Finish.STOP)
        elif len(self.ids) >= self._limit:
            self._end(Finish.LENGTH)

    def cancel(self) -> None:
        """End the row from outside; what it has stays."""
        self._end(Finish.CANCELLED)

    def _end(self, finish: Finish) -> None:
        self.finish = finish
        self.status = Status.CANCELLED if finish is Finish.CANCELLED else Status.FINISHED

    @property
    def settled(self) -> int:
        """How many of `ids` can no longer be cut off as the beginning of a stop sequence."""
        if self.finish is not None or not self._stop_ids:
            return len(self.ids)
        held = 0
        for sequence in self._stop_ids:
            for length in range(min(len(sequence) - 1, len(self.ids)), held, -1):
                if tuple(self.ids[-length:]) == sequence[:length]:
                    held = length
                    break
        return len(self.ids) - held

    def generation(self) -> Generation:
        """The result; a row that was never ended counts as cancelled."""
        finish = self.finish or Finish.CANCELLED
        return Generation(tuple(self.ids), finish, len(self.request.prompt_ids))
