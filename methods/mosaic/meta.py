"""The meta model: a transformer that reads all experts' logits and gives one answer.

Tokens are experts (arXiv:2505.19699, published code). Without an expert embedding the
model is invariant to the order of the experts: it sees a set of logit vectors and not
which expert said what. The embedding is ours, an option. The published class carries two
more parameters (vectors of d and C entries) that no output depends on; they are
left out here.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from methods.mosaic.settings import MetaSettings

ATTENTION = 2**25
"""Attention weights (examples x heads x experts x experts) computed together."""


def examples_together(num_classes: int, num_experts: int) -> int:
    """Return how many examples the meta model reads at once, at least 1.

    Each of C heads weighs E·E pairs of experts, and each of E tokens has 10·C entries: with 200
    classes an example takes 40 MB.
    """
    return max(1, ATTENTION // (num_classes * num_experts * num_experts))


class MetaTransformer(nn.Module):
    """From expert logits [B, E, C] to logits [B, C].

    A shared linear map makes one token of d entries of each expert's logits; a
    post-norm transformer (one encoder, one decoder layer, C heads, no positions, no
    masks) reads the same tokens as source and target; pooling over experts and a linear
    map give the answer.

    Parameters
    ----------
    num_classes : int
        Classes C, which is also the number of attention heads.
    random : torch.Generator or None
        Stream of the initial weights, which live on its device; ``None`` leaves the
        model on the meta device.
    pooling : {'sum', 'mean'}
        ``sum``: d = C·C, tokens summed (published for CIFAR-10). ``mean``: d = 10·C,
        tokens averaged (published for CIFAR-100).
    dropout : float
        In attention and feed-forward layers.
    feedforward : int
        Hidden units of a feed-forward layer.
    embedded_experts : int
        Number of experts that get a learned vector of d entries; 0 for none.
    """

    def __init__(
        self,
        num_classes: int,
        random: torch.Generator | None,
        *,
        pooling: Literal["sum", "mean"] = "sum",
        dropout: float = 0.2,
        feedforward: int = 2048,
        embedded_experts: int = 0,
    ) -> None:
        super().__init__()
        self.pooling = pooling
        self.num_classes = num_classes
        width = num_classes * (num_classes if pooling == "sum" else 10)
        with torch.device("meta"):
            self.fc_expand = nn.Linear(num_classes, width)
            self.transformer = _transformer(width, num_classes, dropout, feedforward)
            self.fc = nn.Linear(width, num_classes)
            if embedded_experts:
                self.expert_embedding = nn.Parameter(torch.empty(embedded_experts, width))
            else:
                self.register_parameter("expert_embedding", None)
        if random is not None:
            self.to_empty(device=random.device)
            self._initialise(random)

    def forward(self, logits: Tensor) -> Tensor:
        """Return logits [B, C] from expert logits [B, E, C].

        Where no gradients are recorded many examples are read in pieces, to bound memory.
        """
        size = examples_together(self.num_classes, logits.shape[1])
        if torch.is_grad_enabled() or len(logits) <= size:
            return self._answer(logits)
        return torch.cat([self._answer(part) for part in torch.split(logits, size)])

    def _answer(self, logits: Tensor) -> Tensor:
        tokens = self.fc_expand(logits)
        if self.expert_embedding is not None:
            tokens = tokens + self.expert_embedding
        tokens = self.transformer(tokens, tokens)
        pooled = tokens.sum(dim=1) if self.pooling == "sum" else tokens.mean(dim=1)
        answer: Tensor = self.fc(pooled)
        return answer

    @torch.no_grad()
    def _initialise(self, random: torch.Generator) -> None:
        """Draw initial weights from PyTorch's own distributions, but from ``random``."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                bound = 1 / math.sqrt(module.in_features)
                module.weight.uniform_(-bound, bound, generator=random)
                module.bias.uniform_(-bound, bound, generator=random)
            elif isinstance(module, nn.LayerNorm):
                module.weight.fill_(1.0)
                module.bias.zero_()
        for name, parameter in self.transformer.named_parameters():
            if parameter.ndim > 1:
                nn.init.xavier_uniform_(parameter, generator=random)
            elif name.endswith(("in_proj_bias", "out_proj.bias")):
                parameter.zero_()
        if self.expert_embedding is not None:
            self.expert_embedding.normal_(0.0, 0.02, generator=random)


class OwnClass(nn.Module):
    """Each expert speaks for its own class: in place of a meta model (ours).

    An expert is made by the clients that hold its class, weighted by how much of it they
    hold; what it says of other classes is said by clients chosen for another reason. The
    published meta model does not know which expert said what, this one knows nothing else.
    What it does on garments stands in reports/FINDINGS.md.
    """

    def forward(self, logits: Tensor) -> Tensor:
        """Return log P_c(c | x), [B, C], of expert logits [B, C, C], axis 1 the expert.

        Not normalised over classes: each entry comes from another distribution. As logits
        they are a distribution over classes in proportion to these probabilities.
        """
        return torch.diagonal(logits.log_softmax(dim=-1), dim1=1, dim2=2)


def _transformer(width: int, heads: int, dropout: float, feedforward: int) -> nn.Transformer:
    encoder = nn.TransformerEncoderLayer(width, heads, feedforward, dropout, batch_first=True)
    decoder = nn.TransformerDecoderLayer(width, heads, feedforward, dropout, batch_first=True)
    # Built by hand only to switch nested tensors off: there is no padding to skip, and
    # PyTorch warns about them for an odd number of heads.
    return nn.Transformer(
        width,
        heads,
        batch_first=True,
        custom_encoder=nn.TransformerEncoder(
            encoder, 1, nn.LayerNorm(width), enable_nested_tensor=False
        ),
        custom_decoder=nn.TransformerDecoder(decoder, 1, nn.LayerNorm(width)),
    )


def make_meta(
    num_classes: int, num_experts: int, settings: MetaSettings, random: torch.Generator
) -> MetaTransformer:
    """Return a fresh meta model by the settings, on the device of ``random``."""
    return MetaTransformer(
        num_classes,
        random,
        pooling=settings.pooling(num_classes),
        dropout=settings.dropout,
        feedforward=settings.feedforward,
        embedded_experts=num_experts if settings.expert_embedding else 0,
    )
