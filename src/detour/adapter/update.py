"""One layer's change as two thin factors, and the algebra that keeps sums of changes exact.

ΔW = scale · up @ down; where the variant asks for it, the base's own output is scaled row by row
and shifted besides. PEFT calls `down` lora_A and `up` lora_B. Nothing here ever forms ΔW except
`delta`. Knows tensors; knows no layer names, no files and no model.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from detour.errors import AdapterWeightsError, ConfigError
from detour.language.catalogue import text


@dataclass(frozen=True, eq=False)
class Update:
    """One layer's change.

    Attributes:
        down: (rank, *in); more than one `in` dimension is a convolution's kernel.
        up: (out, rank); rank 0 where a row scale or a bias is all there is.
        scale: multiplies up @ down (LoRA's alpha / rank).
        row_scale: (out), times the base layer's own output y, its bias included: y + row_scale ⊙ y
            is diag(row_scale) · W_base beside the low-rank part; not multiplied by `scale`.
        bias_delta: (out), added to the layer's output; not multiplied by `scale`.
        lookup: the layer is an embedding: `in` counts ids, and a row of W_baseᵀ is one id's vector.

    Raises:
        AdapterWeightsError: shapes that do not fit each other, values that are not finite.
    """

    down: Float[Tensor, "rank *in"]
    up: Float[Tensor, "out rank"]
    scale: float = 1.0
    row_scale: Float[Tensor, " out"] | None = None
    bias_delta: Float[Tensor, " out"] | None = None
    lookup: bool = False

    def __post_init__(self) -> None:
        for name in ("down", "up", "row_scale", "bias_delta"):
            tensor: Tensor | None = getattr(self, name)
            if tensor is not None:
                object.__setattr__(self, name, _checked(name, tensor))
        self._check_shapes()
        if not abs(self.scale) <= torch.finfo(torch.float32).max:  # also refuses NaN
            raise AdapterWeightsError(
                text("an update's scale is not a finite fp32 number"),
                expected=text("a number such as {example}", example=2.0),
                found=str(self.scale),
            )

    def _check_shapes(self) -> None:
        if self.down.ndim < 2 or self.up.ndim != 2 or self.down.shape[0] != self.up.shape[1]:
            raise AdapterWeightsError(
                text("the two factors of an update do not fit each other"),
                expected="down (rank, in) and up (out, rank)",
                found=f"down {tuple(self.down.shape)} and up {tuple(self.up.shape)}",
                hint=text("check the rank that the factors were made with"),
            )
        some = self.down.shape if self.is_low_rank else self.down.shape[1:]
        if 0 in some or 0 in self.up.shape[: 1 + self.is_low_rank]:
            raise AdapterWeightsError(
                text("an update has an empty factor"),
                expected=text("rank, in and out of at least 1"),
                found=f"down {tuple(self.down.shape)} and up {tuple(self.up.shape)}",
            )
        for name, rows in (("row_scale", self.row_scale), ("bias_delta", self.bias_delta)):
            if rows is not None and rows.shape != (self.out_features,):
                raise AdapterWeightsError(
                    text("an update's {name} does not fit its factors", name=name),
                    expected=f"({self.out_features},)",
                    found=str(tuple(rows.shape)),
                )

    @property
    def rank(self) -> int:
        """Columns of `up`, rows of `down`."""
        return self.down.shape[0]

    @property
    def in_features(self) -> int:
        """Inputs of one output: the product of `down`'s dimensions after the rank."""
        return math.prod(self.down.shape[1:])

    @property
    def out_features(self) -> int:
        """Rows of the changed weight."""
        return self.up.shape[0]

    @property
    def parameters(self) -> int:
        """Numbers that the update holds."""
        tensors = (self.down, self.up, self.row_scale, self.bias_delta)
        return sum(tensor.numel() for tensor in tensors if tensor is not None)

    @property
    def is_low_rank(self) -> bool:
        """Whether the two factors are all there is: no row scale, no bias."""
        return self.row_scale is None and self.bias_delta is None

    def delta(self) -> Float[Tensor, "out *in"]:
        """The dense low-rank part, at least fp32; the row-scale part needs the base and is left."""
        up, down = _at_least_fp32(self.up), _at_least_fp32(self.down)
        return self.scale * (up @ down.flatten(1)).reshape(-1, *down.shape[1:])

    def scaled(self, weight: float) -> Update:
        """The same change `weight` times over."""
        return Update(
            down=self.down,
            up=self.up,
            scale=self.scale * weight,
            row_scale=None if self.row_scale is None else self.row_scale * weight,
            bias_delta=None if self.bias_delta is None else self.bias_delta * weight,
            lookup=self.lookup,
        )

    @staticmethod
    def sum(parts: Sequence[tuple[Update, float]]) -> Update:
        """Σ weight · update, exactly: factors laid side by side along the rank.

        Args:
            parts: at least one (update, weight), all of one layer.

        Returns:
            An update of rank Σ rank and scale 1, every scale and weight folded into `up`.

        Raises:
            AdapterWeightsError: the updates belong to layers of different shapes.
        """
        check_same_layer(parts)
        folded = [_at_least_fp32(update.up) * (update.scale * weight) for update, weight in parts]
        return Update(
            down=torch.cat([_at_least_fp32(update.down) for update, _ in parts]),
            up=torch.cat(folded, dim=1),
            row_scale=_weighted([(update.row_scale, weight) for update, weight in parts]),
            bias_delta=_weighted([(update.bias_delta, weight) for update, weight in parts]),
            lookup=parts[0][0].lookup,
        )

    def norm(self) -> float:
        """Frobenius norm of the low-rank part, by Gram matrices; rounding below 1e-8 of ‖A‖‖B‖."""
        return math.sqrt(max(0.0, self.inner(self)))

    def inner(self, other: Update) -> float:
        """⟨ΔW, ΔW'⟩ of the low-rank parts: Σ (upᵀ up') ⊙ (down down'ᵀ), cost O(r r' (in + out)).

        Raises:
            AdapterWeightsError: the two belong to layers of different shapes.
        """
        check_same_layer([(self, 1.0), (other, 1.0)])
        outputs = self.up.double().T @ other.up.double()
        inputs = self.down.double().flatten(1) @ other.down.double().flatten(1).T
        return self.scale * other.scale * float((outputs * inputs).sum())

    def compressed(self, rank: int) -> tuple[Update, float]:
        """The best update of at most `rank` (Eckart-Young), and what it cost.

        Thin QR of both factors and an SVD of the small core, in fp64: ΔW is never formed. A row
        scale and a bias are kept as they are.

        Returns:
            The update (scale 1, singular values shared evenly by both factors) and its relative
            Frobenius error √(Σ_{j>rank} σⱼ² / Σ σⱼ²), 0 for a zero update.

        Raises:
            ConfigError: `rank` is below 1.
        """
        if rank < 1:
            raise ConfigError(
                text("{name} is out of range", name="rank"),
                expected=text("a whole number of at least {lowest}", lowest=1),
                found=str(rank),
            )
        if self.rank == 0:
            return self, 0.0
        q_up, r_up = torch.linalg.qr(self.up.double())
        q_down, r_down = torch.linalg.qr(self.down.double().flatten(1).T)
        left, sizes, right = torch.linalg.svd(self.scale * (r_up @ r_down.T), full_matrices=False)
        kept = min(rank, sizes.numel())
        roots = sizes[:kept].sqrt()
        down = (roots[:, None] * (right[:kept] @ q_down.T)).reshape(kept, *self.down.shape[1:])
        smaller = Update(
            down=down.to(_at_least_fp32(self.down).dtype),
            up=(q_up @ left[:, :kept] * roots).to(_at_least_fp32(self.up).dtype),
            row_scale=self.row_scale,
            bias_delta=self.bias_delta,
            lookup=self.lookup,
        )
        total = float(sizes.norm())
        return smaller, float(sizes[kept:].norm()) / total if total > 0 else 0.0


# what adapters are kept in; float8 is for weights that nobody adds to
FLOATS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def all_finite(tensor: Tensor) -> bool:
    """Whether every value is a finite fp32 number, in which slots compute.

    A finite sum says so in a third of the time.
    """
    if tensor.dtype == torch.float64:
        return bool(tensor.float().isfinite().all())
    return bool(tensor.sum().isfinite()) or bool(tensor.isfinite().all())


def _checked(name: str, tensor: Tensor) -> Tensor:
    if tensor.dtype not in FLOATS:
        raise AdapterWeightsError(
            text("an update's {name} is not made of floating point numbers", name=name),
            expected="float32, bfloat16 or float16",
            found=str(tensor.dtype),
        )
    if not all_finite(tensor):
        raise AdapterWeightsError(
            text("an update's {name} holds NaN or infinity", name=name),
            expected=text("finite numbers"),
            found=text(
                "{bad} of {count} not finite",
                bad=int((~torch.isfinite(tensor)).sum()),
                count=tensor.numel(),
            ),
            hint=text("the training diverged or the file is damaged; take an earlier save"),
        )
    # a value must not move when its optimiser takes another step
    return tensor.detach().clone() if tensor.requires_grad else tensor


def check_same_layer(parts: Sequence[tuple[Update, float]]) -> None:
    """Raises AdapterWeightsError: the updates are none, or not all of one layer."""
    shapes = {(update.out_features, *update.down.shape[1:]) for update, _ in parts}
    if len({update.lookup for update, _ in parts}) > 1:
        raise AdapterWeightsError(
            text("one update changes an embedding and another one a linear layer of the same name"),
            hint=text("these adapters were made for different models"),
        )
    if len(shapes) != 1:
        raise AdapterWeightsError(
            text("only updates of one and the same layer can be combined"),
            expected=text("one shape (out, in)"),
            found=", ".join(str(shape) for shape in sorted(shapes)) or text("no update at all"),
            hint=text("these adapters were made for different models"),
        )


def _weighted(parts: Sequence[tuple[Tensor | None, float]]) -> Tensor | None:
    scaled = [_at_least_fp32(rows) * weight for rows, weight in parts if rows is not None]
    return torch.stack(scaled).sum(0) if scaled else None


def _at_least_fp32(tensor: Tensor) -> Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
