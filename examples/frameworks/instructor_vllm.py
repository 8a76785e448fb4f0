"""Instructor on a vLLM server.

    pip install instructor
"""

import instructor
from openai import OpenAI
from pydantic import BaseModel


class User(BaseModel):
    name: str
    age: int


client = instructor.from_openai(
    OpenAI(base_url="http://localhost:8000/v1", api_key="EMPTY"),
    mode=instructor.Mode.JSON_SCHEMA,  # vLLM enforces it; other modes only ask
)
user = client.chat.completions.create(
    model="Qwen/Qwen3-4B",
    messages=[{"role": "user", "content": "Write JSON for a user named Ada, age 36."}],
    response_model=User,
    temperature=0,
    extra_body={"top_k": 20, "chat_template_kwargs": {"enable_thinking": False}},
)
print(repr(user))
#> User(name='Ada', age=36)
