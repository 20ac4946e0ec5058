//! Asks the API server whose a token is, and remembers the answer for a while.

use super::caller::{self, AUDIENCE, Caller, Nobody};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use futures::{FutureExt as _, future::BoxFuture};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus};
use kube::{Api, Client, api::PostParams};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::{Duration, UNIX_EPOCH},
};
use thiserror::Error;
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout},
};
use tombolo_runtime::{clock::Clock, places::Source, telemetry::chain};

/// How long an answer is believed. A pod that is gone, or an account that was deleted, is found out after so long.
const KEPT: Duration = Duration::from_secs(60);
/// How long a refusal is: a pod may come a moment before the API server knows it.
const REFUSED: Duration = Duration::from_secs(2);
/// How long the API server may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Questions at a time: strangers may ask, and the API server has other work.
const AT_ONCE: usize = 16;
/// Of these, from one address: a pod that shows one token after the other stands in nobody's way.
const EACH: usize = 4;
/// Answers that are remembered.
const MOST: usize = 8192;
/// The longest token that is looked at.
const LONGEST: usize = 16 << 10;

/// Puts the question to an API server; the error is for people.
pub(crate) type Ask =
    Arc<dyn Fn(String) -> BoxFuture<'static, Result<TokenReviewStatus, String>> + Send + Sync>;

/// Why it is not known who asks.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub(crate) enum ReviewError {
    /// Nobody of ours.
    #[error(transparent)]
    Nobody(#[from] Nobody),
    /// Not a token of Kubernetes, or over.
    #[error("the token can't be used: {0}")]
    Token(&'static str),
    /// The API server can't say now.
    #[error("the API server can't be asked whose the token is: {0}")]
    Away(String),
}

/// Whose tokens are.
pub(crate) struct Reviews {
    ask: Ask,
    clock: Arc<dyn Clock>,
    known: Mutex<HashMap<[u8; 32], Known>>,
    asking: Semaphore,
    shares: Mutex<HashMap<Source, Weak<Semaphore>>>,
}

struct Known {
    until: Instant,
    answer: Result<Arc<Caller>, Nobody>,
}

impl fmt::Debug for Reviews {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reviews").finish_non_exhaustive()
    }
}

/// By the API server of this client.
pub(crate) fn by(client: Client) -> Ask {
    Arc::new(move |token| {
        let reviews: Api<TokenReview> = Api::all(client.clone());
        async move {
            let spec = TokenReviewSpec { audiences: Some(vec![AUDIENCE.to_owned()]), token: Some(token) };
            let review = TokenReview { spec, ..TokenReview::default() };
            match reviews.create(&PostParams::default(), &review).await {
                Ok(review) => Ok(review.status.unwrap_or_default()),
                Err(kube::Error::Api(status)) if status.code == 403 => {
                    Err(format!("{}; let the agent's role create tokenreviews", status.message))
                }
                Err(error) => Err(chain(&error)),
            }
        }
        .boxed()
    })
}

impl Reviews {
    /// Nothing is known yet.
    pub(crate) fn new(ask: Ask, clock: Arc<dyn Clock>) -> Self {
        Self {
            ask,
            clock,
            known: Mutex::default(),
            asking: Semaphore::new(AT_ONCE),
            shares: Mutex::default(),
        }
    }

    /// Whose this token is, which came from this address. Cancel-safe.
    ///
    /// # Errors
    /// [`ReviewError`].
    pub(crate) async fn whose(&self, token: &str, from: Source) -> Result<Arc<Caller>, ReviewError> {
        let left = self.left(token)?;
        let mark: [u8; 32] = Sha256::digest(token).into();
        if let Some(answer) = self.remembered(&mark) {
            return Ok(answer?);
        }
        let share = self.share(from);
        let asked = async {
            let _share = share.acquire().await;
            let _place = self.asking.acquire().await;
            (self.ask)(token.to_owned()).await
        };
        let status = timeout(PATIENCE, asked)
            .await
            .unwrap_or_else(|_| Err(format!("no answer within {} s", PATIENCE.as_secs())))
            .map_err(ReviewError::Away)?;
        let answer = caller::read(&status).map(Arc::new);
        let kept = if answer.is_ok() { KEPT } else { REFUSED };
        self.remember(mark, Known { until: Instant::now() + kept.min(left), answer: answer.clone() });
        Ok(answer?)
    }

    /// The questions that one address may have put at a time; forgotten with the last of them.
    fn share(&self, from: Source) -> Arc<Semaphore> {
        let mut shares = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(share) = shares.get(&from).and_then(Weak::upgrade) {
            return share;
        }
        shares.retain(|_, share| share.strong_count() > 0);
        let share = Arc::new(Semaphore::new(EACH));
        shares.insert(from, Arc::downgrade(&share));
        share
    }

    /// How long the token is good for, by its own word: what is remembered never outlives it. Whether the word is true,
    /// the API server says.
    fn left(&self, token: &str) -> Result<Duration, ReviewError> {
        #[derive(Deserialize)]
        struct Claims {
            exp: u64,
        }
        const NONE: ReviewError = ReviewError::Token("it is no service-account token that expires");
        if token.len() > LONGEST {
            return Err(ReviewError::Token("it is too long"));
        }
        let mut parts = token.split('.');
        let (Some(_), Some(claims), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(NONE);
        };
        let claims = URL_SAFE_NO_PAD.decode(claims).map_err(|_| NONE)?;
        let Claims { exp } = serde_json::from_slice(&claims).map_err(|_| NONE)?;
        let now = self.clock.now().duration_since(UNIX_EPOCH).unwrap_or_default();
        match Duration::from_secs(exp).checked_sub(now) {
            Some(left) if !left.is_zero() => Ok(left),
            _ => Err(ReviewError::Token("it has expired")),
        }
    }

    fn remembered(&self, mark: &[u8; 32]) -> Option<Result<Arc<Caller>, Nobody>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(mark).filter(|known| known.until > Instant::now()).map(|known| known.answer.clone())
    }

    fn remember(&self, mark: [u8; 32], answer: Known) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MOST {
            let now = Instant::now();
            known.retain(|_, known| known.until > now);
        }
        if known.len() >= MOST {
            // Refusals first: strangers must not push out those who are known.
            let first = known.iter().min_by_key(|(_, known)| (known.answer.is_ok(), known.until));
            if let Some(mark) = first.map(|(mark, _)| *mark) {
                known.remove(&mark);
            }
        }
        known.insert(mark, answer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tombolo_runtime::clock::ManualClock;

    const NOW: u64 = 1_800_000_000;

    fn here() -> Source {
        Source::of([10, 0, 0, 1].into())
    }

    fn token(of: &str, exp: u64) -> String {
        let claims = URL_SAFE_NO_PAD.encode(json!({"sub": of, "exp": exp}).to_string());
        format!("e30.{claims}.x")
    }

    /// An API server that takes tokens of everybody but `mallory`, and counts the questions.
    fn asked() -> (Reviews, Arc<AtomicUsize>) {
        let count = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&count);
        let ask: Ask = Arc::new(move |token| {
            counted.fetch_add(1, Ordering::SeqCst);
            async move {
                let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
                let claims: serde_json::Value = serde_json::from_slice(&claims).unwrap();
                let status = match claims["sub"].as_str().unwrap() {
                    "away" => return Err("connection refused".to_owned()),
                    "slow" => return std::future::pending().await,
                    "mallory" => json!({"error": "unknown"}),
                    account => json!({
                        "authenticated": true, "audiences": [AUDIENCE],
                        "user": {
                            "username": format!("system:serviceaccount:shop:{account}"),
                            "extra": {
                                "authentication.kubernetes.io/pod-name": ["p"],
                                "authentication.kubernetes.io/pod-uid": ["u"],
                            },
                        },
                    }),
                };
                Ok(serde_json::from_value(status).unwrap())
            }
            .boxed()
        });
        let clock = ManualClock::new(UNIX_EPOCH + Duration::from_secs(NOW));
        (Reviews::new(ask, Arc::new(clock)), count)
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_kept_for_a_minute_and_never_past_the_token() {
        let (reviews, count) = asked();
        let count = || count.load(Ordering::SeqCst);
        let long = token("cart", NOW + 3600);
        for _ in 0..3 {
            assert_eq!(reviews.whose(&long, here()).await.unwrap().account.as_str(), "cart");
        }
        assert_eq!(count(), 1);
        tokio::time::advance(KEPT).await;
        reviews.whose(&long, here()).await.unwrap();
        assert_eq!(count(), 2);
        let short = token("cart", NOW + 10);
        reviews.whose(&short, here()).await.unwrap();
        tokio::time::advance(Duration::from_secs(10)).await;
        reviews.whose(&short, here()).await.unwrap();
        assert_eq!(count(), 4, "it was asked again when the token was over");
        let over = reviews.whose(&token("cart", NOW), here()).await;
        assert_eq!(over, Err(ReviewError::Token("it has expired")));
        assert_eq!(count(), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn refusals_and_silence() {
        let (reviews, count) = asked();
        let bad = token("mallory", NOW + 60);
        for _ in 0..2 {
            assert!(matches!(reviews.whose(&bad, here()).await, Err(ReviewError::Nobody(_))));
        }
        assert_eq!(count.load(Ordering::SeqCst), 1);
        tokio::time::advance(REFUSED).await;
        assert!(reviews.whose(&bad, here()).await.is_err());
        assert_eq!(count.load(Ordering::SeqCst), 2, "a refusal is short");
        for silent in ["away", "slow"] {
            assert!(matches!(
                reviews.whose(&token(silent, NOW + 60), here()).await,
                Err(ReviewError::Away(_))
            ));
        }
        assert_eq!(reviews.known.lock().unwrap().len(), 1, "silence is no answer");
        for none in ["", "a.b", "a.b.c", "e30.e30.x", "a.b.c.d", &"x".repeat(LONGEST + 1)] {
            assert!(matches!(reviews.whose(none, here()).await, Err(ReviewError::Token(_))), "{none}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn strangers_push_nobody_out() {
        let (reviews, count) = asked();
        let good = token("cart", NOW + 3600);
        reviews.whose(&good, here()).await.unwrap();
        for number in 0..=MOST {
            let bad = token("mallory", NOW + 60 + number as u64);
            assert!(reviews.whose(&bad, here()).await.is_err());
        }
        assert_eq!(reviews.known.lock().unwrap().len(), MOST);
        let before = count.load(Ordering::SeqCst);
        reviews.whose(&good, here()).await.unwrap();
        assert_eq!(count.load(Ordering::SeqCst), before);
    }

    #[tokio::test(start_paused = true)]
    async fn one_address_keeps_nobody_from_asking() {
        let (reviews, _) = asked();
        let slow = (0..2 * AT_ONCE as u64).map(|n| {
            let reviews = &reviews;
            async move { reviews.whose(&token("slow", NOW + 60 + n), here()).await }
        });
        let slow = futures::future::join_all(slow);
        let good = async {
            tokio::task::yield_now().await;
            reviews.whose(&token("cart", NOW + 60), Source::of([10, 0, 0, 2].into())).await
        };
        let (refused, answer) = tokio::join!(slow, good);
        assert!(answer.is_ok(), "{answer:?}");
        assert!(refused.iter().all(|one| matches!(one, Err(ReviewError::Away(_)))));
        reviews.share(here());
        assert_eq!(reviews.shares.lock().unwrap().len(), 1, "who asks nothing is forgotten");
    }
}
