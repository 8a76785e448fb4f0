// Runs the search worker of the built documentation, as a browser would: node search.cjs SITE QUERY...
// Prints for each query the locations of the pages found, best first.
const fs = require("fs");
const path = require("path");

const [site, ...queries] = process.argv.slice(2);
const folder = path.join(site, "assets", "javascripts", "workers");
const worker = fs.readdirSync(folder).find(name => /^search\..*\.min\.js$/.test(name));

const waiting = [];
let receive;
globalThis.self = globalThis;
globalThis.addEventListener = (_, listener) => { receive = listener; };
globalThis.postMessage = message => waiting.shift()(message);
const ask = message => new Promise(resolve => { waiting.push(resolve); receive({ data: message }); });
new Function(fs.readFileSync(path.join(folder, worker), "utf8"))();

// What the page adds to a query while it is typed: each word may be the beginning of a longer one.
(async () => {
  const index = JSON.parse(fs.readFileSync(path.join(site, "search", "search_index.json"), "utf8"));
  await ask({ type: 0, data: { ...index, options: { suggest: true } } });
  const found = {};
  for (const query of queries) {
    const { data } = await ask({ type: 2, data: query });
    found[query] = data.items.map(sections => sections.map(section => section.location));
  }
  console.log(JSON.stringify(found));
})();
