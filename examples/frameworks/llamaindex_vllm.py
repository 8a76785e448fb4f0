"""LlamaIndex on a vLLM server.

    pip install llama-index-llms-openai-like
"""

from llama_index.llms.openai_like import OpenAILike

llm = OpenAILike(
    model="Qwen/Qwen3-4B",
    api_base="http://localhost:8000/v1",
    api_key="EMPTY",
    is_chat_model=True,
    is_function_calling_model=True,
    context_window=32768,
    temperature=0,
    additional_kwargs={
        "extra_body": {"top_k": 20, "chat_template_kwargs": {"enable_thinking": False}}
    },
)

print(llm.complete("What is the capital of France?").text)
#> The capital of France is Paris.

for chunk in llm.stream_complete("Say hello in five languages."):
    print(chunk.delta, end="")
print()
#> Hello, Bonjour, こんにちは, 你好, Здравствуйте 👋🏽
