"""Pydantic AI on a vLLM server.

    pip install "pydantic-ai-slim[openai]"
"""

from pydantic import BaseModel
from pydantic_ai import Agent, NativeOutput
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

model = OpenAIChatModel(
    "Qwen/Qwen3-4B",
    provider=OpenAIProvider(base_url="http://localhost:8000/v1", api_key="EMPTY"),
    settings={
        "temperature": 0,
        "extra_body": {"top_k": 20, "chat_template_kwargs": {"enable_thinking": False}},
    },
)

print(Agent(model).run_sync("What is the capital of France?").output)
#> The capital of France is Paris.


class User(BaseModel):
    name: str
    age: int


# NativeOutput sends a JSON schema, which vLLM enforces. The default is a tool call.
agent = Agent(model, output_type=NativeOutput(User))
print(repr(agent.run_sync("Write JSON for a user named Ada, age 36.").output))
#> User(name='Ada', age=36)
