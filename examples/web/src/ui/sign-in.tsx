import { useState } from 'preact/hooks'
import { register, signIn } from '../session.ts'

export function SignIn() {
  const [error, setError] = useState('')
  const [isBusy, setBusy] = useState(false)

  async function submit(event: SubmitEvent) {
    event.preventDefault()
    const form = new FormData(event.currentTarget as HTMLFormElement, event.submitter)
    const [email, password] = [String(form.get('email')), String(form.get('password'))]
    setBusy(true)
    setError('')
    try {
      await (form.get('action') === 'register' ? register : signIn)(email, password)
    } catch (error) {
      setError((error as Error).message)
      setBusy(false)
    }
  }

  return (
    <main class="sign-in">
      <h1>To-do</h1>
      <form onSubmit={submit}>
        <label>
          E-mail
          <input name="email" type="email" autocomplete="username" required />
        </label>
        <label>
          Password
          <input name="password" type="password" autocomplete="current-password" minlength={8} required />
        </label>
        <p role="alert">{error}</p>
        <div class="actions">
          <button type="submit" name="action" value="sign-in" disabled={isBusy}>
            Sign in
          </button>
          <button type="submit" name="action" value="register" disabled={isBusy} class="quiet">
            Create an account
          </button>
        </div>
      </form>
    </main>
  )
}
