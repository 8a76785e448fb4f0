"""Load several LoRA adapters, and switch between them from call to call."""

from pathlib import Path

from vllmchat import VLLMProvider

ADAPTERS = {name: Path("adapters", name).resolve() for name in ("legal", "medical")}
"""Paths on the server's machine."""

llm = VLLMProvider("Qwen/Qwen3-4B")
for name, path in ADAPTERS.items():
    llm.load_lora(name, str(path))

print([model.id for model in llm.models().data if model.parent])
#> ['legal', 'medical']

# Per call: the name of the adapter is a model name.
print(llm.chat("Hello", model="legal", max_tokens=10, temperature=0).model)
#> legal

# For many calls: a copy with the same connections.
medical = llm.with_options(model="medical")
print(medical.chat("Hello", max_tokens=10, temperature=0).model)
#> medical

# The base model is still there.
print(llm.chat("Hello", temperature=0).text)
#> Hello! How can I help you today?

for name in ADAPTERS:
    llm.unload_lora(name)
