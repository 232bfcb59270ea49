"""Tiny transformers models whose sites are not what the names of hook points promise."""

from typing import Any

import torch
import transformers
from transformer_lens.model_bridge import TransformerBridge
from transformers import PreTrainedTokenizerFast

_SMALL = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "initializer_range": 0.3,
    "intermediate_size": 64, "max_position_embeddings": 64,
}  # fmt: skip
_GROUPED = _SMALL | {"num_key_value_heads": 2}
_EXPERTS = _GROUPED | {"num_experts": 4, "num_experts_per_tok": 2}
_LATENT = _SMALL | {
    "num_key_value_heads": 4, "kv_lora_rank": 16, "qk_nope_head_dim": 8, "v_head_dim": 8,
    "n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 1, "topk_group": 1,
    "moe_intermediate_size": 16, "first_k_dense_replace": 1, "n_shared_experts": 1,
}  # fmt: skip
_OPT = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "ffn_dim": 64,
    "max_position_embeddings": 64, "init_std": 0.3,
}  # fmt: skip
UNUSUAL: dict[str, tuple[str, str, str, dict[str, Any]]] = {
    "OLMoE": ("OlmoeForCausalLM", "OlmoeConfig", "allenai/OLMoE-1B-7B-0924", _EXPERTS),
    "Qwen 2 MoE": (
        "Qwen2MoeForCausalLM", "Qwen2MoeConfig", "Qwen/Qwen1.5-MoE-A2.7B",
        _EXPERTS | {"moe_intermediate_size": 16, "shared_expert_intermediate_size": 32},
    ),
    "Qwen 3 MoE": (
        "Qwen3MoeForCausalLM", "Qwen3MoeConfig", "Qwen/Qwen3-30B-A3B",
        _EXPERTS | {"moe_intermediate_size": 16, "head_dim": 8, "mlp_only_layers": [0]},
    ),
    "GPT-OSS": (
        "GptOssForCausalLM", "GptOssConfig", "openai/gpt-oss-20b",
        _GROUPED | {"num_local_experts": 4, "num_experts_per_tok": 2, "head_dim": 8,
                    "sliding_window": 4},
    ),
    "DeepSeek 2": (
        "DeepseekV2ForCausalLM", "DeepseekV2Config", "deepseek-ai/DeepSeek-V2-Lite",
        _LATENT | {"q_lora_rank": None, "qk_rope_head_dim": 8},
    ),
    "DeepSeek 3": (
        "DeepseekV3ForCausalLM", "DeepseekV3Config", "deepseek-ai/DeepSeek-V3",
        _LATENT | {"q_lora_rank": 16, "qk_rope_head_dim": 4},
    ),
    "Jamba": (
        "JambaForCausalLM", "JambaConfig", "ai21labs/Jamba-v0.1",
        _EXPERTS | {"attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2,
                    "expert_layer_offset": 1, "mamba_d_state": 4, "mamba_d_conv": 2,
                    "mamba_dt_rank": 4, "use_mamba_kernels": False},
    ),
    "Mamba": (
        "MambaForCausalLM", "MambaConfig", "state-spaces/mamba-130m-hf",
        {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 4, "use_mambapy": False},
    ),
    "GPT-1": (
        "OpenAIGPTLMHeadModel", "OpenAIGPTConfig", "openai-community/openai-gpt",
        {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 64, "initializer_range": 0.3},
    ),
    "BERT": ("BertForMaskedLM", "BertConfig", "google-bert/bert-base-cased", _SMALL),
    "OPT": (
        "OPTForCausalLM", "OPTConfig", "facebook/opt-125m", _OPT | {"word_embed_proj_dim": 32},
    ),
    "post-norm OPT": (
        "OPTForCausalLM", "OPTConfig", "facebook/opt-350m",
        _OPT | {"word_embed_proj_dim": 16, "do_layer_norm_before": False},
    ),
    "Mistral": (
        "MistralForCausalLM", "MistralConfig", "mistralai/Mistral-7B-v0.1",
        _GROUPED | {"sliding_window": 3},
    ),
    "Gemma 3": (
        "Gemma3ForCausalLM", "Gemma3TextConfig", "google/gemma-3-270m",
        _GROUPED | {"head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 4,
                    "layer_types": ["sliding_attention", "full_attention"]},
    ),
    "GPT-Neo": (
        "GPTNeoForCausalLM", "GPTNeoConfig", "EleutherAI/gpt-neo-125m",
        {"hidden_size": 32, "num_layers": 2, "num_heads": 2, "max_position_embeddings": 64,
         "attention_types": [[["global", "local"], 1]], "window_size": 4, "initializer_range": 0.3},
    ),
    "Llama": ("LlamaForCausalLM", "LlamaConfig", "meta-llama/Llama-2-7b-hf", _GROUPED),
    "GPT-2": (
        "GPT2LMHeadModel", "GPT2Config", "gpt2",
        {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 64, "initializer_range": 0.3},
    ),
}  # fmt: skip
"""Class, configuration, whose layout it has, settings; weights are random."""
MIXTURES = ("OLMoE", "Qwen 2 MoE", "Qwen 3 MoE", "GPT-OSS", "DeepSeek 2", "DeepSeek 3", "Jamba")
"""Mixtures of experts. In some, layer 0 is none."""
DENSE_FIRST_LAYER = ("Qwen 3 MoE", "DeepSeek 2", "DeepSeek 3", "Jamba")


def original(kind: str, n_vocab: int) -> transformers.PreTrainedModel:
    """The model of transformers, the same each time."""
    architecture, config, _, settings = UNUSUAL[kind]
    torch.manual_seed(0)
    chosen = getattr(transformers, config)(
        **settings, vocab_size=n_vocab, architectures=[architecture]
    )
    chosen._attn_implementation = "eager"
    model: transformers.PreTrainedModel = getattr(transformers, architecture)(chosen)
    return model.eval()


def boot(
    kind: str, tokenizer: PreTrainedTokenizerFast, dtype: torch.dtype = torch.float32
) -> TransformerBridge:
    """The same in TransformerLens; the tokenizer is one that was loaded from a folder."""
    inner = original(kind, len(tokenizer)).to(dtype)
    name = UNUSUAL[kind][2]
    return TransformerBridge.boot_transformers(name, hf_model=inner, tokenizer=tokenizer).eval()
