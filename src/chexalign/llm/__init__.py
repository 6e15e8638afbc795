"""Language models that judges ask: one interface (prompts in, answers or reasons out) over three backends.

    url and model    any OpenAI-compatible endpoint: vLLM, SGLang, llama.cpp, `transformers serve`      endpoint.py
    model            a checkpoint in this process, with transformers                                    local.py
    answers          a file of canned answers, for tests and for answers made elsewhere                 canned.py

A judge that asks one inherits its options and `ask` from base.LlmJudge.
"""
