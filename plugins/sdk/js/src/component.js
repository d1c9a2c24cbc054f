// Between the contract and the author's class. The entry that the build writes hands both over.
import { Batch } from './batch.js';
import { PluginError } from './error.js';
import { Config, bind, log } from './host.js';
import { Output } from './output.js';
import { Schemas } from './schema.js';

/** Runs, and tells what is thrown that is no answer: the instance ends with it. */
function told(run) {
  try {
    return run();
  } catch (error) {
    if (error instanceof PluginError) throw error.variant();
    log('error', error?.stack ? `${error}\n${error.stack}` : String(error));
    // Not in the form of any answer: it ends the call.
    throw error;
  }
}

/** The exports of the world `transform`. */
export function transformExports(Plugin, host) {
  bind(host);
  const schemas = new Schemas();
  let open;
  const descriptor = () => Plugin.descriptor();
  return {
    plugin: {
      descriptor: () => told(() => {
        const { name, version, summary } = descriptor();
        return { name, version, summary };
      }),
      configSpec: () => told(() => descriptor().options.map(({ spec }) => spec)),
      checkConfig: () => told(() => (Plugin.check?.(new Config()) ?? []).map(({ path, message, hint }) => ({
        path, message, hint,
      }))),
    },
    transforms: {
      open: () => told(() => {
        open = Plugin.open(new Config());
      }),
      process: (bytes) => told(() => {
        if (open === undefined) throw PluginError.terminal('PLUGIN_NOT_OPEN', 'the plugin has not been opened');
        let batch;
        try {
          batch = new Batch(bytes, schemas);
        } catch (error) {
          throw PluginError.terminal('PLUGIN_BATCH', `the batch from the host cannot be read: ${error.message}`);
        }
        const out = new Output(batch);
        open.process(batch, out);
        return { batch: out.finish(), rejected: out.rejected };
      }),
    },
  };
}
