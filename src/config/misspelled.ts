import { distance } from 'fastest-levenshtein'
import type { Reader } from './config.ts'

const lettersMax = 2
/** Shorter names are like too many others. */
const lengthMin = 6

/**
 * Variables whose name is nearly that of a setting which is not set, each with that setting: with `DATABSE_URL` the service
 * would start, on the embedded database. To be called when all settings were read.
 */
export function findMisspelled({ env, settings, isSet }: Pick<Reader, 'env' | 'settings' | 'isSet'>) {
  const known = [...settings].flatMap(([name, { isSecret }]) => (isSecret ? [name, `${name}_FILE`] : [name]))
  const unset = known.filter(name => name.length >= lengthMin && !isSet(name))
  return Object.keys(env).flatMap(name => {
    // In small letters, too.
    const isNear = (setting: string) =>
      Math.abs(setting.length - name.length) <= lettersMax &&
      distance(setting, name.toUpperCase()) <= lettersMax
    const nearest = known.includes(name) ? undefined : unset.find(isNear)
    return nearest ? [{ name, nearest }] : []
  })
}
