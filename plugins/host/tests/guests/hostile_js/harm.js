// What a plugin can do that is nothing good.
import { Config, Descriptor, Element, OptionSpec, PluginError } from 'towpath-sdk';

const option = (name) => new Config().text(name);

const deep = (depth) => 1 + deep(depth + 1);

function hog() {
  const held = [];
  for (;;) held.push(new Uint8Array(1 << 20).fill(1));
}

/** Does what the options say (`how`) in the function that they say (`at`). */
export function act(at) {
  if (option('at') !== at) return undefined;
  switch (option('how')) {
    case 'loop': for (;;);
    case 'throw': throw new Error('on purpose');
    case 'text': throw 'on purpose';
    case 'stack': return deep(0);
    case 'hog': return hog();
    case 'async': return Promise.resolve();
    case 'nonsense': return { then: 7, length: -1 };
    case 'retry': throw PluginError.retry('HOSTILE', 'later', { delayMs: 7000 });
    case 'operator': throw PluginError.needsOperator('HOSTILE', 'not with these', { hint: 'others' });
    case 'terminal': throw PluginError.terminal('HOSTILE', 'no more');
    default: return undefined;
  }
}

let calls = 0;

/** Loops in the call whose number is in the module: 9, unless a test puts another in its place. */
export function describe(name) {
  const call = `descriptor ${calls}`;
  calls += 1;
  while (call === 'descriptor 9');
  return new Descriptor(name, '0.1.0', 'Does what it is told')
    .option(OptionSpec.optional('at', Element.text, 'Where to do it.'))
    .option(OptionSpec.optional('how', Element.text, 'What to do.'));
}
