"""What `jupyter xinfer local --launch NAME` prints when a model is ready: where it is, and lines to paste."""


def banner(uid: str, url: str, api_key: str) -> str:
    """`url` is the server's address up to and including its base URL; `api_key` is the token callers send."""
    return f"""
    {uid} is ready.

    JupyterLab   {url}lab?token={api_key}
    OpenAI API   {url}v1
    API key      {api_key}

    curl:
      curl {url}v1/chat/completions \\
        -H "Authorization: Bearer {api_key}" -H "Content-Type: application/json" \\
        -d '{{"model": "{uid}", "messages": [{{"role": "user", "content": "What is the capital of France?"}}]}}'

    Python:
      from jupyter_xinfer import Client; print(Client("{url}", api_key="{api_key}").get_model("{uid}").chat("Hello!"))

    With the openai package:
      OpenAI(base_url="{url}v1", api_key="{api_key}")
"""
