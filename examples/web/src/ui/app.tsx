import { useEffect, useState } from 'preact/hooks'
import { onSession, session } from '../session.ts'
import { Board } from './board.tsx'
import { SignIn } from './sign-in.tsx'

export function App() {
  const [user, setUser] = useState(session)
  useEffect(() => onSession(() => setUser(session())), [])
  return user ? <Board email={user.email} /> : <SignIn />
}
