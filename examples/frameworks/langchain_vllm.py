"""LangChain on a vLLM server.

    pip install langchain-openai
"""

from langchain_core.tools import tool
from langchain_openai import ChatOpenAI

llm = ChatOpenAI(
    model="Qwen/Qwen3-4B",
    base_url="http://localhost:8000/v1",
    api_key="EMPTY",
    temperature=0,
    extra_body={"top_k": 20, "chat_template_kwargs": {"enable_thinking": False}},
)

print(llm.invoke("What is the capital of France?").content)
#> The capital of France is Paris.

for chunk in llm.stream("Say hello in five languages."):
    print(chunk.content, end="")
print()
#> Hello, Bonjour, こんにちは, 你好, Здравствуйте 👋🏽


@tool
def get_weather(city: str) -> str:
    """Current weather."""
    return f"21 C, sunny in {city}"


reply = llm.bind_tools([get_weather]).invoke("What is the weather in Paris?")
print(reply.tool_calls[0]["name"], reply.tool_calls[0]["args"])
#> get_weather {'city': 'Paris'}
