"""How the rows of a step are shared: by several processes, and by the parts of a batch that fit into memory.

Each row of an epoch is read once, whatever the number of processes, the micro batch and the number of rows, and a
step's loss is the mean over the rows of the step. Accelerate's own sharding fills up the last step of an epoch with
rows from its beginning.

A process for which the last step has no row reads a stand-in that counts nothing, so that all processes take part in
every exchange.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence, Sized
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import BatchSampler

ROWS = "rows_here"  # in a batch: how many rows of it count
IGNORED = -100  # the label that a loss leaves out


class Shares(BatchSampler):
    """This process's part of each batch: (row, …); parts differ by one row at most, and may be empty.

    ``batch_size`` counts the rows that all processes read together.
    """

    def __init__(self, sampler: Any, batch_size: int, number: int, processes: int) -> None:
        super().__init__(sampler, batch_size, drop_last=False)
        self.number, self.processes = number, processes

    def __iter__(self) -> Iterator[list[int]]:
        for batch in super().__iter__():
            bounds = [len(batch) * number // self.processes for number in (self.number, self.number + 1)]
            yield batch[bounds[0] : bounds[1]]


class Rows(torch.utils.data.Dataset[Any]):
    """A dataset that also gives the rows of an empty part: none."""

    def __init__(self, data: Any) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data)

    def __getitems__(self, places: list[int]) -> list[Any]:
        return [self.data[place] for place in places]


def sharing_loader(
    data: Sized, sampler: Any, collate: Callable[[list[Any]], dict[str, Any]], micro_batch: int, accelerator: Any
) -> Any:
    """A loader of this process's batches, at most ``micro_batch`` rows each; ``ROWS`` says how many of them count."""
    from accelerate.data_loader import prepare_data_loader
    from torch.utils.data import DataLoader

    rows, processes = Rows(data), accelerator.num_processes

    def collated(part: list[Any]) -> dict[str, Any]:
        batch = dict(collate(part or rows.__getitems__([0])))
        if not part and "labels" in batch:
            batch["labels"] = torch.full_like(batch["labels"], IGNORED)
        return {**batch, ROWS: len(part)}

    shares = Shares(sampler, micro_batch * processes, accelerator.process_index, processes)
    loader = DataLoader(rows, batch_sampler=shares, collate_fn=collated, pin_memory=accelerator.device.type == "cuda")
    # The batches are shared out already: one process for accelerate
    return prepare_data_loader(
        loader, accelerator.device, num_processes=1, process_index=0, put_on_device=True, dispatch_batches=False
    )


def gathered(value: Any, *, counts: bool) -> Any:
    """Tensors of all processes one after the other, of those that have a row that ``counts``; single numbers too.

    In place of accelerate's, which needs tensors of one length and cuts off what it filled up.
    """
    if isinstance(value, list | tuple):
        return type(value)(gathered(one, counts=counts) for one in value)
    own = value.detach()
    own = own[None] if own.ndim == 0 else own
    own = own if counts else own[:0]
    processes = torch.distributed.get_world_size()
    length = torch.tensor([len(own)], device=own.device)
    lengths = [torch.zeros_like(length) for _ in range(processes)]
    torch.distributed.all_gather(lengths, length)
    longest = max(int(one) for one in lengths)
    padded = own.new_zeros(longest, *own.shape[1:])
    padded[: len(own)] = own
    parts = [torch.zeros_like(padded) for _ in range(processes)]
    torch.distributed.all_gather(parts, padded.contiguous())
    return torch.cat([part[: int(one)] for part, one in zip(parts, lengths, strict=True)])


def total(value: Tensor, processes: int) -> Tensor:
    """The sum of a tensor over all processes."""
    if processes > 1:
        value = value.clone()
        torch.distributed.all_reduce(value)
    return value


def sharing(trainer_class: type) -> type:
    """The trainer class whose steps are the same for any number of processes and any micro batch.

    ``rows`` holds how many rows of each micro batch of the step count here, ``place`` the one at work, ``step_rows``
    the rows of the step in all processes.
    """

    class Sharing(trainer_class):  # type: ignore[misc, valid-type]
        rows: Sequence[int] = ()
        step_batches: Sequence[dict[str, Any]] = ()
        step_rows = 0
        place = 0

        def get_train_dataloader(self) -> Any:
            if self.accelerator.num_processes > 1:
                self.accelerator.gather = self.accelerator.gather_for_metrics = self.gathered
            data = self._remove_unused_columns(self.train_dataset, description="training")
            sampler = self._get_train_sampler(data)
            return sharing_loader(data, sampler, self.data_collator, self._train_batch_size, self.accelerator)

        def gathered(self, value: Any, *_: Any) -> Any:
            """A tensor of the micro batch at work, of all processes for which it has rows."""
            if self.accelerator.num_processes == 1:
                return value
            return gathered(value, counts=not self.rows or self.rows[self.place] > 0)

        def total(self, value: Any) -> Tensor:
            """The sum of a number over all processes."""
            number = torch.as_tensor(value, device=self.accelerator.device)
            return total(number, self.accelerator.num_processes)

        def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: Any) -> tuple[Any, Any]:
            self.rows = ()
            batches, items = super().get_batch_samples(epoch_iterator, num_batches, device)
            self.rows, self.place = [batch.pop(ROWS) for batch in batches], -1
            self.step_batches, self.step_rows = batches, int(self.total(sum(self.rows)))
            return batches, items

        def training_step(self, *arguments: Any, **named: Any) -> Any:
            self.place += 1
            return super().training_step(*arguments, **named)

        @property
        def share(self) -> float:
            """What the mean loss over this micro batch's rows counts, so that a step's loss is the mean over its rows.

            The trainer divides by the number of micro batches and of processes, which is right for even parts alone.
            """
            if not self.step_rows:
                return 1.0
            parts = self.accelerator.num_processes * self.current_gradient_accumulation_steps
            return float(self.rows[self.place] * parts / self.step_rows)

        def compute_loss(
            self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
        ) -> Any:
            found = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
            if num_items_in_batch is not None:  # the loss is a sum over tokens, divided by those of the step
                return found
            return (found[0] * self.share, found[1]) if return_outputs else found * self.share

    return Sharing
