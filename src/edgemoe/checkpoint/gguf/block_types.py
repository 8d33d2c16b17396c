"""Block types of GGUF tensors by number: sizes of those that are read, names of those that are not."""

from __future__ import annotations

from dataclasses import dataclass

from edgemoe.errors import CheckpointError

_IK = "of ik_llama.cpp"
_GONE = "which llama.cpp has retired"
# Numbers that the gguf library does not know, with what they stand for.
_FOREIGN: dict[int, tuple[str, str]] = {
    **dict.fromkeys((4, 5), ("Q4_2 or Q4_3", _GONE)),
    **{31 + i: (f"Q4_0_{name}", _GONE) for i, name in enumerate(("4_4", "4_8", "8_8"))},
    **{36 + i: (f"IQ4_NL_{name}", _GONE) for i, name in enumerate(("4_4", "4_8", "8_8"))},
    42: ("Q2_0", "of newer llama.cpp"),
    **{
        number: (name, _IK)
        for number, name in (
            (97, "Q8_0_X4"), (98, "Q8_1_X4"), (99, "Q8_2_X4"), (133, "Q6_0"), (134, "IQ1_BN"),
            (135, "IQ2_BN"),
            (136, "Q8_K64"), (137, "IQ2_K"), (138, "IQ3_K"), (139, "IQ4_K"), (140, "IQ5_K"), (141, "IQ6_K"),
            (142, "IQ2_TN"), (143, "IQ1_TN"), (144, "IQ4_KS"), (145, "IQ2_KS"), (146, "IQ4_KSS"),
            (147, "Q8_K16"), (148, "Q8_K32"), (149, "Q8_KR8"), (150, "Q8_K128"), (151, "Q8_KV"),
            (152, "IQ5_KS"), (153, "IQ2_KT"), (154, "IQ3_KT"), (155, "IQ4_KT"), (156, "IQ3_KS"),
            (157, "IQ2_KL"), (158, "IQ1_KT"), (202, "Q4_0_R8"), (206, "Q5_0_R4"), (208, "Q8_0_R8"),
            (210, "Q2_K_R4"), (211, "Q3_K_R4"), (212, "Q4_K_R4"), (213, "Q5_K_R4"), (214, "Q6_K_R4"),
            (216, "IQ2_XXS_R4"), (217, "IQ2_XS_R4"), (218, "IQ3_XXS_R4"), (219, "IQ1_S_R4"),
            (220, "IQ4_NL_R4"), (221, "IQ3_S_R4"), (222, "IQ2_S_R4"), (223, "IQ4_XS_R8"), (229, "IQ1_M_R4"),
            (230, "BF16_R16"), (233, "Q6_0_R4"), (335, "IQ2_BN_R4"), (337, "IQ2_K_R4"), (338, "IQ3_K_R4"),
            (339, "IQ4_K_R4"), (340, "IQ5_K_R4"), (344, "IQ4_KS_R4"), (352, "IQ5_KS_R4"),
            (398, "Q8_KV_R8"), (399, "Q8_K_R8"),
        )
    },
}  # fmt: skip
_ADVICE = "get a file of the types that llama.cpp itself writes, such as Q4_K_M or Q8_0"
# Read without the library's help.
_FLOATS = ("F32", "F16", "BF16")


@dataclass(frozen=True, slots=True)
class BlockType:
    """A type that is read: blocks of so many values in so many bytes."""

    number: int
    name: str
    num_values: int
    num_bytes: int


def find_block_type(number: int, tensor: str, path: object) -> BlockType:
    """The type of this number.

    Raises:
        CheckpointError: it is not read; named as those who made it do.
    """
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
    from gguf.quants import _type_traits

    where = f"{path}: tensor {tensor} has block type {number}"
    try:
        kind = GGMLQuantizationType(number)
    except ValueError:
        name, whose = _FOREIGN.get(
            number, ("unknown", "neither of llama.cpp nor of ik_llama.cpp as known here")
        )
        raise CheckpointError(f"{where} ({name}, {whose}), which is not read; {_ADVICE}") from None
    if kind not in _type_traits and kind.name not in _FLOATS:
        raise CheckpointError(f"{where} ({kind.name}), which is not read; {_ADVICE}")
    num_values, num_bytes = GGML_QUANT_SIZES[kind]
    return BlockType(number, kind.name, num_values, num_bytes)
