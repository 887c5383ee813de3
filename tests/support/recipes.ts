/** The recipes of a document: what each says to write, and what to run. */
interface Recipe {
  title: string
  /** New files, and hunks for files that exist, by path. */
  changes: Map<string, Change[]>
  /** Lines of its `sh` blocks. */
  commands: string[]
}

type Change = { kind: 'file'; text: string } | { kind: 'hunk'; before: string; after: string }

/**
 * Reads them: a recipe is a `###` heading and its code blocks. The word after the language is the path: `ts` has a
 * new file, `diff` a change, in which `@@` separates places of one file.
 */
export function readRecipes(markdown: string): Recipe[] {
  const [, ...sections] = markdown.split(/^### /m)
  // The last one is followed by other chapters.
  const recipes = sections.map(section => section.split(/^## /m)[0]!)
  return recipes.map(section => {
    const recipe: Recipe = { title: section.split('\n')[0]!, changes: new Map(), commands: [] }
    for (const [, language, path, text] of section.matchAll(/^```(\w+) ?(\S*)\n(.*?)^```$/gms)) {
      if (language === 'sh') recipe.commands.push(...text!.trim().split('\n'))
      else if (path)
        recipe.changes.set(path, [...(recipe.changes.get(path) ?? []), ...changesOf(language!, text!)])
    }
    return recipe
  })
}

function changesOf(language: string, text: string): Change[] {
  if (language !== 'diff') return [{ kind: 'file', text }]
  return text.split(/^@@\n/m).map(hunk => {
    const lines = hunk.split('\n').slice(0, -1)
    const side = (sign: string) =>
      lines
        .filter(line => line[0] !== sign)
        .map(line => `${line.slice(1)}\n`)
        .join('')
    return { kind: 'hunk', before: side('+'), after: side('-') }
  })
}

/** A file with the changes of a recipe. Throws, with the lines, where the recipe is out of date. */
export function change(path: string, before: string | undefined, changes: Change[]): string {
  let text = before
  for (const part of changes) {
    if (part.kind === 'file') {
      if (text !== undefined) throw new Error(`${path} exists already`)
      text = part.text
      continue
    }
    const places = (text ?? '').split(part.before).length - 1
    if (places !== 1)
      throw new Error(
        `${path} has these lines ${places} times; the recipe in .github/CONTRIBUTING.md must quote what is there:\n${part.before}`,
      )
    text = text!.replace(part.before, () => part.after)
  }
  return text!
}
