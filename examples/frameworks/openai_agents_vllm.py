"""The OpenAI Agents SDK on a vLLM server.

    pip install openai-agents
"""

import asyncio

from agents import (
    Agent,
    ModelSettings,
    OpenAIChatCompletionsModel,
    Runner,
    function_tool,
    set_tracing_disabled,
)
from openai import AsyncOpenAI

set_tracing_disabled(True)  # traces would be sent to OpenAI

model = OpenAIChatCompletionsModel(
    model="Qwen/Qwen3-4B",
    openai_client=AsyncOpenAI(base_url="http://localhost:8000/v1", api_key="EMPTY"),
)


@function_tool
def get_weather(city: str) -> str:
    """Current weather."""
    return {"Paris": "21 C, sunny", "Oslo": "4 C, rain"}[city]


agent = Agent(
    name="weather",
    model=model,
    tools=[get_weather],
    model_settings=ModelSettings(
        temperature=0,
        extra_body={"top_k": 20, "chat_template_kwargs": {"enable_thinking": False}},
    ),
)


async def main() -> None:
    result = await Runner.run(agent, "What is the weather in Paris?")
    print(result.final_output)
    #> It is 21 C and sunny in Paris.


asyncio.run(main())
