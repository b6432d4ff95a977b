"""Names of the hub: what -hf accepts, and which files of a repository it means."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgespec.errors import UsageError
from edgespec.store.hub.names import Spec, asked_by, choose, models_of, quant_of, spec_of

LLAMA = [f"Llama-3.2-3B-Instruct-{q}.gguf" for q in ("IQ3_M", "Q4_0", "Q4_K_M", "Q6_K_L", "f16")]
PARTS = [f"qwen2.5-7b-instruct-q4_k_m-0000{i}-of-00002.gguf" for i in (1, 2)]
UNSLOTH = ["Q-UD-Q4_K_XL.gguf", "Q-Q4_K_M.gguf", "BF16/Q-BF16-00001-of-00001.gguf"]


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("a/b", Spec("a/b")),
        (" a/b:Q4_K_M ", Spec("a/b", "Q4_K_M")),
        ("a/b.c-GGUF:folder/file-00001-of-00002.gguf",
         Spec("a/b.c-GGUF", "folder/file-00001-of-00002.gguf")),
        ("https://huggingface.co/a/b/", Spec("a/b")),
        ("hf.co/a/b:Q8_0", Spec("a/b", "Q8_0")),
        ("https://hf.co/a/b", Spec("a/b")),
        ("http://www.huggingface.co/a/b:Q8_0", Spec("a/b", "Q8_0")),
        ("hf://a/b", Spec("a/b")),
        ("https://huggingface.co/a/b/tree/main", Spec("a/b")),
        ("https://huggingface.co/a/b/tree/main/Q8_0", Spec("a/b", "Q8_0")),
        ("https://hf.co/a/b/blob/main/x/c-Q8_0.gguf", Spec("a/b", "x/c-Q8_0.gguf")),
        ("huggingface.co/a/b/resolve/main/c.gguf?download=true", Spec("a/b", "c.gguf")),
    ],
)  # fmt: skip
def test_a_repository_and_a_choice(text: str, spec: Spec) -> None:
    assert spec_of(text) == spec
    assert spec_of(str(spec)) == spec


@pytest.mark.parametrize(
    "text",
    ["", "gpt2", "a/b/c", "a/b:", "/a/b", "a /b", "a/b:c:d", "./x/y", "./x.gguf", "../x.gguf",
     "a/.b", "a/b.", "-a/b", "a/b-", "x.gguf", "https://hf.co/a", "https://hf.co/a/b/tree/v2"],
)  # fmt: skip
def test_what_is_no_repository_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is no repository: expected USER/REPO or USER/REPO:QUANT"
                       ) as caught:  # fmt: skip
        spec_of(text)
    assert str(caught.value).endswith("a file is opened with -m") == text.endswith(".gguf")


@pytest.mark.parametrize(
    ("name", "quant"),
    [
        ("Llama-3.2-1B-Instruct-Q4_K_M.gguf", "Q4_K_M"),
        ("qwen2.5-0.5b-instruct-q8_0.gguf", "Q8_0"),
        ("qwen2.5-3b-instruct-fp16.gguf", "F16"),
        ("Phi-3-mini-4k-instruct-q4.gguf", "Q4"),
        ("gemma-3-270m-it-Q8_0.gguf", "Q8_0"),
        ("gemma-3-4b-it-qat-q4_0.gguf", "Q4_0"),
        ("Meta-Llama-3-8B-Instruct.IQ2_XXS.gguf", "IQ2_XXS"),
        ("UD-Q4_K_XL/M-UD-Q4_K_XL-00001-of-00003.gguf", "UD-Q4_K_XL"),
        ("Q2_K/model-00001-of-00004.gguf", "Q2_K"),
        ("gpt-oss-20b-mxfp4.gguf", "MXFP4"),
        ("m-MXFP4_MOE.gguf", "MXFP4_MOE"),
        ("m-NVFP4.gguf", "NVFP4"),
        ("m-bf16.gguf", "BF16"),
        ("model_q4_k_m.gguf", "Q4_K_M"),
        ("Qwen3-4B.gguf", ""),
        ("SmolLM2-F1609.gguf", ""),
    ],
)
def test_the_quantization_a_name_speaks_of(name: str, quant: str) -> None:
    assert quant_of(name) == quant


@pytest.mark.parametrize(
    ("files", "choice", "expected"),
    [
        (LLAMA, "", ["Llama-3.2-3B-Instruct-Q4_K_M.gguf"]),
        (LLAMA, "q4_0", ["Llama-3.2-3B-Instruct-Q4_0.gguf"]),
        (LLAMA, "F16", ["Llama-3.2-3B-Instruct-f16.gguf"]),
        (LLAMA, "Llama-3.2-3B-Instruct-IQ3_M.gguf", ["Llama-3.2-3B-Instruct-IQ3_M.gguf"]),
        (PARTS[::-1], "", PARTS),
        (PARTS, PARTS[1], PARTS),
        (["m-Q8_0.gguf", "m-Q6_K.gguf"], "", ["m-Q8_0.gguf"]),
        (["anything.gguf", "mmproj-Q4_K_M.gguf"], "", ["anything.gguf"]),
        (["m.gguf", "m.imatrix.gguf", "imatrix.gguf"], "", ["m.gguf"]),
        (UNSLOTH, "Q4_K_XL", ["Q-UD-Q4_K_XL.gguf"]),
        (UNSLOTH, "BF16", ["BF16/Q-BF16-00001-of-00001.gguf"]),
        (["mtp-m-Q8_0.gguf", "m-Q8_0.gguf"], "", ["m-Q8_0.gguf"]),
        (["mtp-m-Q8_0.gguf", "m-Q8_0.gguf"], "Q8_0", ["m-Q8_0.gguf"]),
        (["mtp-m-Q8_0.gguf", "m-Q8_0.gguf"], "mtp-m-Q8_0.gguf", ["mtp-m-Q8_0.gguf"]),
        (["m-MXFP4_MOE.gguf", "m-Q2_K.gguf"], "mxfp4", ["m-MXFP4_MOE.gguf"]),
        (["m-NVFP4.gguf", "m-F16.gguf"], "", ["m-NVFP4.gguf"]),
        (UNSLOTH, "Q-BF16.gguf", ["BF16/Q-BF16-00001-of-00001.gguf"]),
    ],
)
def test_the_files_that_are_meant(files: list[str], choice: str, expected: list[str]) -> None:
    assert choose(files, Spec("a/b", choice)) == expected


@pytest.mark.parametrize(
    ("files", "choice", "line"),
    [
        (LLAMA, "Q5_K_M", "a/b has no 'Q5_K_M': expected F16, IQ3_M, Q4_0, Q4_K_M, Q6_K_L, as a/b"),
        (LLAMA, "Q4_K", "a/b has no 'Q4_K'"),
        (
            ["x-Q2_K.gguf", "x-Q3_K_S.gguf"],
            "",
            "a/b has no usual quantization: expected Q2_K, Q3_K_S, as a/b:Q2_K",
        ),
        (
            ["x-Q8_0.gguf", "y-Q8_0.gguf"],
            "Q8_0",
            "a/b:Q8_0 could be x-Q8_0.gguf, y-Q8_0.gguf: name",
        ),
        (
            ["m-Q4_K_M.gguf", "mtp-m-Q8_0.gguf"],
            "Q8_0",
            "a/b has no 'Q8_0': expected Q4_K_M, mtp-m-Q8_0.gguf, as a/b:Q4_K_M",
        ),
        (["mtp-m-Q8_0.gguf"], "", "expected mtp-m-Q8_0.gguf, as a/b:mtp-m-Q8_0.gguf"),
        (["x-Q8_0.gguf", "y-Q8_0.gguf"], "Q4_0", "expected x-Q8_0.gguf, y-Q8_0.gguf, as a/b:x-Q"),
        (PARTS[1:], "", "a/b has no whole GGUF model"),
        (["model.safetensors"], "", "a/b has no whole GGUF model"),
        (
            [f"{i}.gguf" for i in range(20)],
            "",
            "expected 0.gguf, 1.gguf, 10.gguf, 11.gguf, 12.gguf, 13.gguf, 14.gguf, 15.gguf, "
            "16.gguf, 17.gguf, 18.gguf, 19.gguf and 8 more, as a/b:0.gguf",
        ),
    ],
)
def test_no_such_model_lists_what_there_is(files: list[str], choice: str, line: str) -> None:
    with pytest.raises(UsageError) as caught:
        choose(files, Spec("a/b", choice))
    assert line in str(caught.value)


@pytest.mark.parametrize(
    "files", [LLAMA, UNSLOTH, ["m.gguf", "mtp-m-Q8_0.gguf", "x/m-Q6_K.gguf", "y/m-Q6_K.gguf"]]
)
def test_what_is_listed_can_be_asked_for(files: list[str]) -> None:
    for name, asked in asked_by(models_of(files)).items():
        assert choose(files, Spec("a/b", asked)) == models_of(files)[name]


@given(st.permutations([*LLAMA, *PARTS, "mmproj-f16.gguf", "README.md"]))
def test_the_order_of_the_files_does_not_matter(files: list[str]) -> None:
    found = models_of(files)
    assert found["qwen2.5-7b-instruct-q4_k_m.gguf"] == PARTS
    assert sorted(name for names in found.values() for name in names) == sorted([*LLAMA, *PARTS])
