// Makes a component of a plugin in JavaScript or TypeScript: node build.mjs REQUEST, a JSON file.
import { componentize } from '@bytecodealliance/componentize-js';
import { build } from 'esbuild';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

const request = JSON.parse(await readFile(process.argv[2], 'utf8'));
const { project, work, output } = request;
const { name, main, towpath } = JSON.parse(await readFile(join(project, 'package.json'), 'utf8'));
// The project says what the plugin is.
const world = towpath?.kind ?? request.world;
if (typeof main !== 'string') {
  console.error('package.json does not name the plugin: write `"main": "src/index.js"`');
  process.exit(1);
}
if (!['source', 'sink', 'transform'].includes(world)) {
  console.error('package.json does not say what the plugin is: write `"towpath": { "kind": "source" }`, "sink" or "transform"');
  process.exit(1);
}

// One file out of the entry, the SDK, the plugin and what it depends on: the engine resolves no package names.
const bundle = join(work, 'bundle.js');
const sdk = join(work, 'sdk', 'js', 'src');
try {
  await build({
    entryPoints: [join(work, 'entries', `${world}.js`)],
    outfile: bundle,
    bundle: true,
    format: 'esm',
    platform: 'neutral',
    mainFields: ['module', 'main'],
    target: 'es2022',
    absWorkingDir: project,
    alias: {
      'towpath-sdk': join(sdk, 'index.js'),
      'towpath-component': join(sdk, 'component.js'),
      'towpath-plugin': join(project, main),
    },
    external: ['towpath:plugin/*'],
    logLevel: 'warning',
  });
} catch {
  // What is wrong has been printed, with its place.
  process.exit(1);
}
try {
  // Without any feature of its own the engine imports nothing but the contract (R11).
  const { component } = await componentize({
    sourcePath: bundle,
    witPath: join(work, 'wit'),
    worldName: world,
    disableFeatures: ['stdio', 'random', 'clocks', 'http', 'fetch-event'],
  });
  await writeFile(output, component);
  console.log(JSON.stringify({ name }));
} catch (error) {
  console.error(`${error.message ?? error}`);
  process.exit(1);
}
