import { useEffect, useState } from 'preact/hooks'
import { onSession, session } from '../session.ts'
import { Board } from './board.tsx'
import { SignIn } from './sign-in.tsx'

export function App() {
  const [current, setCurrent] = useState(session)
  useEffect(() => onSession(() => setCurrent(session())), [])
  return current ? <Board key={current.id} session={current} /> : <SignIn />
}
