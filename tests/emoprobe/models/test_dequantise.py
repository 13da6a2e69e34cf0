"""The embedded model's conversion: what is written is what Transformers reads from the same file."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from emoprobe.config.science.capture import Capture
from emoprobe.models.dequantise import dequantise
from emoprobe.models.source import check_capture

WIDTH, HEADS, KEY_HEADS, INNER, LAYERS = 64, 4, 2, 96, 2
TEXT = "say it again <|end|> say it"


def write_tiny(path: Path) -> None:
    """A random quantised Llama with the merges of a few words."""
    letters = sorted("Ġsayitgn")
    merges = ["s a", "sa y", "i t", "Ġ it"]
    tokens = ["<|endoftext|>", "<|start|>", "<|end|>", "<|more|>", *letters, "sa", "say", "it", "Ġit"]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_block_count(LAYERS)
    writer.add_context_length(128)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KEY_HEADS)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.CONTROL] * 4 + [gguf.TokenType.NORMAL] * (len(tokens) - 4))
    writer.add_token_merges(merges)
    writer.add_add_bos_token(False)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(2)
    writer.add_chat_template("{% for message in messages %}{{ message['content'] }}{% endfor %}")
    generator = np.random.default_rng(0)

    def add(name: str, *shape: int) -> None:
        values = generator.normal(size=shape).astype(np.float32)
        if len(shape) == 1:
            writer.add_tensor(name, values)
            return
        kind = gguf.GGMLQuantizationType.Q4_1
        writer.add_tensor(name, gguf.quantize(values, kind), raw_dtype=kind)

    add("token_embd.weight", len(tokens), WIDTH)
    add("output_norm.weight", WIDTH)
    for layer in range(LAYERS):
        key_width = WIDTH // HEADS * KEY_HEADS
        for part, *shape in (
            ("attn_norm", WIDTH), ("attn_q", WIDTH, WIDTH), ("attn_k", key_width, WIDTH), ("attn_v", key_width, WIDTH),
            ("attn_output", WIDTH, WIDTH), ("ffn_norm", WIDTH), ("ffn_gate", INNER, WIDTH), ("ffn_up", INNER, WIDTH),
            ("ffn_down", WIDTH, INNER),
        ):  # fmt: skip
            add(f"blk.{layer}.{part}.weight", *shape)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_it_is_what_transformers_reads(tmp_path: Path) -> None:
    write_tiny(tmp_path / "tiny.gguf")
    (tmp_path / "plain").mkdir()
    dequantise(tmp_path / "tiny.gguf", tmp_path / "plain")
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="tiny.gguf", dtype=torch.float32)
    expected = {name: value for name, value in theirs.state_dict().items() if name != "lm_head.weight"}
    found = load_file(tmp_path / "plain/model.safetensors")
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    config = AutoConfig.from_pretrained(tmp_path / "plain").to_dict()
    wanted = theirs.config.to_dict() | {"architectures": ["LlamaForCausalLM"]}
    del wanted["quantization_config"]
    different = {name for name in config.keys() | wanted.keys() if config.get(name) != wanted.get(name)}
    assert different <= {"_name_or_path"}
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "plain")
    reference = AutoTokenizer.from_pretrained(tmp_path, gguf_file="tiny.gguf")
    assert tokenizer(TEXT).input_ids == reference(TEXT).input_ids
    assert tokenizer.backend_tokenizer.to_str() == reference.backend_tokenizer.to_str()
    assert tokenizer.special_tokens_map == reference.special_tokens_map
    messages = [{"role": "user", "content": "say"}]
    assert tokenizer.apply_chat_template(messages) == reference.apply_chat_template(messages)


def test_the_default_capture_fits_the_embedded_model(smollm2: Path) -> None:
    check_capture(Capture(), smollm2)
