// Asks the server in every way that the openai package for Node.js knows, and prints what it understood as JSON.

import OpenAI, { AuthenticationError, BadRequestError, NotFoundError } from 'openai';

const [, , baseURL, apiKey] = process.argv;
const client = new OpenAI({ baseURL, apiKey, maxRetries: 0 });
const model = 'xinfer-demo';
const messages = [{ role: 'user', content: 'What is the capital of France?' }];
const tools = [
  {
    type: 'function',
    function: {
      name: 'get_weather',
      description: 'Get the weather in a city',
      parameters: {
        type: 'object',
        properties: { city: { type: 'string' } },
        required: ['city'],
        additionalProperties: false
      }
    }
  }
];

async function failure(call, kind) {
  try {
    await call();
  } catch (error) {
    return { expected: error instanceof kind, status: error.status, param: error.param, code: error.code };
  }
  return null;
}

const found = {};

found.models = [];
for await (const each of client.models.list()) {
  found.models.push(each.id);
}

const whole = await client.chat.completions.create({ model, messages, temperature: 0 });
found.whole = { text: whole.choices[0].message.content, usage: whole.usage, id: whole._request_id };

const stream = client.chat.completions.stream({
  model,
  messages,
  temperature: 0,
  stream_options: { include_usage: true }
});
let pieces = '';
for await (const chunk of stream) {
  pieces += chunk.choices[0]?.delta?.content ?? '';
}
const final = await stream.finalChatCompletion();
found.stream = { pieces, text: final.choices[0].message.content, usage: final.usage };

const calling = client.chat.completions.stream({
  model,
  messages: [{ role: 'user', content: 'What is the weather in Rome?' }],
  tools,
  tool_choice: 'required',
  temperature: 0
});
found.calls = (await calling.finalChatCompletion()).choices[0].message.tool_calls.map(call => call.function);

const runner = client.chat.completions.runTools({
  model,
  messages: [{ role: 'user', content: 'What is the weather in Rome?' }],
  tools: [
    {
      type: 'function',
      function: { ...tools[0].function, parse: JSON.parse, function: async ({ city }) => `sunny in ${city}` }
    }
  ],
  temperature: 0
});
await runner.done();
found.tool_results = runner.messages.filter(message => message.role === 'tool').map(message => message.content);

const shaped = await client.chat.completions.parse({
  model,
  messages,
  max_tokens: 60,
  response_format: {
    type: 'json_schema',
    json_schema: {
      name: 'answer',
      strict: true,
      schema: {
        type: 'object',
        properties: { capital: { enum: ['Paris', 'Rome'] } },
        required: ['capital'],
        additionalProperties: false
      }
    }
  }
});
found.shaped = JSON.parse(shaped.choices[0].message.content);

const completion = await client.completions.create({ model, prompt: ['One', 'Two'], max_tokens: 2, echo: true });
found.completions = completion.choices.map(choice => choice.text.slice(0, 3));

const response = await client.responses.create({ model, input: 'What is the capital of France?', temperature: 0 });
found.response = response.output_text;
const events = client.responses.stream({ model, input: 'What is the capital of France?', temperature: 0 });
found.response_stream = (await events.finalResponse()).output_text;

found.bad = await failure(
  () => client.chat.completions.create({ model, messages, temperature: 9 }),
  BadRequestError
);
found.missing = await failure(() => client.models.retrieve('no-such-model'), NotFoundError);
const stranger = new OpenAI({ baseURL, apiKey: 'sk-wrong', maxRetries: 0 });
found.stranger = await failure(() => stranger.models.list(), AuthenticationError);

const aborted = await client.chat.completions.create({ model, messages, stream: true });
let seen = 0;
for await (const _ of aborted) {
  seen += 1;
  break;
}
found.aborted = seen;

console.log(JSON.stringify(found));
