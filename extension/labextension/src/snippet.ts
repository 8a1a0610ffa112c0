import type { IModel } from './api.js';

/**
 * Python that uses a running model from a notebook of this server.
 *
 * It holds no address and no key: the client finds the server that runs the kernel, and its identity there.
 */
export function connectionCode(model: Pick<IModel, 'id' | 'model_ability'>): string {
  const uid = JSON.stringify(model.id);
  return [
    'from jupyter_xinfer import Client',
    '',
    `model = Client().get_model(${uid})`,
    ...exampleOf(model.model_ability, uid)
  ].join('\n');
}

/** What to ask of a model with these abilities. */
function exampleOf(abilities: readonly string[], uid: string): string[] {
  if (abilities.includes('embed')) {
    return [
      'vectors = model.embed(["A man is eating food.", "Somebody has a meal."])',
      'print(sum(a * b for a, b in zip(*vectors)))  # how similar they are, at most 1',
      '',
      '# With the openai package; address and key are filled in:',
      `# model.openai().embeddings.create(model=${uid}, input=["A man is eating food."])`
    ];
  }
  if (abilities.includes('rerank')) {
    return [
      'documents = ["Bamboo.", "A bear is an animal."]',
      'for each in model.rerank("What do pandas eat?", documents):',
      '    print(each.score, each.document)'
    ];
  }
  const completes = abilities.includes('generate') && !abilities.includes('chat');
  return [
    completes ? 'print(model.generate("Once upon a time"))' : 'print(model.chat("Hello!"))',
    '',
    '# With the openai package; address and key are filled in:',
    '# messages = [{"role": "user", "content": "Hello!"}]',
    `# model.openai().chat.completions.create(model=${uid}, messages=messages)`
  ];
}
