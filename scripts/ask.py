"""Ask one question through the unmodified OpenAI SDK, as `deploy --json` on standard input says where and how."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from openai import OpenAI, OpenAIError


def main() -> None:
    """Print question, answer, base URL and key; one line and exit code 1 when no answer comes."""
    deployed = json.load(sys.stdin)
    key_file = deployed["api_key_file"]
    key = Path(key_file).read_text().strip() if key_file else "not-needed"
    question = sys.argv[1]
    try:
        answer = OpenAI(base_url=deployed["base_url"], api_key=key, timeout=300).chat.completions.create(
            model=deployed["name"],
            messages=[{"role": "user", "content": question}],
            max_tokens=64,
            temperature=0,
        )
    except OpenAIError as error:
        sys.exit(f"error: no answer: {error}; try: orchestrator logs {deployed['name']}")
    print(f"\nquestion:   {question}\nanswer:     {answer.choices[0].message.content}\n")
    print(f"base_url:   {deployed['base_url']}\napi_key:    {key}   (kept in {key_file})")


main()
